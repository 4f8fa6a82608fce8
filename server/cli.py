"""The command `nkat`: parses, calls, and turns errors into one line. Nothing heavy is imported for --help.

A subcommand is a function here and a module in `server.commands` that does the work.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from server.commands.bench import bench
from server.commands.compare import compare
from server.commands.convert import convert, several_values
from server.commands.optimize import optimize
from server.commands.select import select
from server.kobold_flags import take_apart
from server.options import errors_in_one_line, with_settings
from server.settings import Settings

ThetaPath = Annotated[Path | None, typer.Option(help="file with theta; unset: the model file's own")]
NoTheta = Annotated[bool, typer.Option("--no-theta", help="leave theta out")]
ThetaGamma = Annotated[float | None, typer.Option(help="strength of theta, 0 to 1; unset: its file's")]
Kernels = Annotated[
    str, typer.Option(envvar="NKAT_KERNELS", help=Settings.model_fields["kernels"].description)
]

app = typer.Typer(
    help="NKAT: a KoboldCpp-compatible inference server for GGUF models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def serve(settings: Settings) -> None:
    """Serve a GGUF model over the APIs of KoboldAI and OpenAI. KoboldCpp's other flags are taken, too."""
    from server.commands.serve import serve

    serve(settings)


def demo(settings: Settings) -> None:
    """Serve a small model that is fetched when it is not there yet (98 MB)."""
    from server.commands.demo import demo

    demo(settings)


def perplexity(
    model: Annotated[Path, typer.Option(help="GGUF file")],
    text: Annotated[Path, typer.Option("--text", help="UTF-8 text to predict")],
    ctx: Annotated[int, typer.Option(help="tokens of one window")] = 512,
    windows: Annotated[int | None, typer.Option(min=1, help="at most so many windows; unset: all")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; unset: the physical cores")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    kernels: Kernels = "auto",
    theta_path: ThetaPath = None,
    no_theta: NoTheta = False,
    theta_gamma: ThetaGamma = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Measure how well a model predicts a text, by llama.cpp's definition."""
    from backend_selector.facts import Wishes
    from server.commands.perplexity import perplexity

    with errors_in_one_line():
        wishes = Wishes(
            device=device,
            kernels=kernels,
            contextsize=ctx,
            threads=threads,
            theta=not no_theta,
            theta_path=theta_path,
            gamma=theta_gamma,
        )
        perplexity(model, text, ctx, wishes, windows=windows, as_json=as_json)


def doctor(
    model: Annotated[Path | None, typer.Option(help="GGUF or .nkat file to judge as well")] = None,
    theta_path: ThetaPath = None,
    no_theta: NoTheta = False,
    theta_gamma: ThetaGamma = None,
    contextsize: Annotated[int | None, typer.Option(min=1, help="tokens a request may span")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    gpulayers: Annotated[
        int | None, typer.Option(min=-1, help="layers on GPUs, the output is one; unset, -1: as many as fit")
    ] = None,
    quantkv: Annotated[int, typer.Option(min=0, max=2, help="KV cache on GPUs: 0 f16, 1 q8, 2 q4")] = 0,
    kernels: Kernels = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; unset: the physical cores")] = None,
    host: Annotated[str, typer.Option(help="address that the server is to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port that it is to listen on")] = 5001,
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Say what is well with this machine, what is not, and what to do about it; exit code 1 for a problem."""
    from backend_selector.facts import Wishes
    from server.commands.doctor import doctor

    with errors_in_one_line():
        wishes = Wishes(
            device=device,
            gpulayers=gpulayers,
            quantkv=quantkv,
            kernels=kernels,
            contextsize=contextsize,
            threads=threads,
            theta=not no_theta,
            theta_path=theta_path,
            gamma=theta_gamma,
        )
        raise SystemExit(doctor(model, wishes, host=host, port=port, as_json=as_json))


app.command("serve")(with_settings(serve))
app.command("demo")(with_settings(demo))
app.command("perplexity")(perplexity)
app.command("convert")(convert)
app.command("bench")(bench)
app.command("compare")(compare)
app.command("optimize")(optimize)
app.command("select")(select)
app.command("doctor")(doctor)


def main() -> None:
    """Entry of the console command: exit code 2 for what the user can mend, 130 after Ctrl-C."""
    arguments = take_apart(sys.argv[1:])
    app(prog_name="nkat", args=several_values(list(arguments.own)), obj=arguments.ignored)
