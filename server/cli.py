"""The command `nkat`: parses, calls, and turns errors into one line. Nothing heavy is imported for --help.

A subcommand is a function here and a module in `server.commands` that does the work.
"""

from pathlib import Path
from typing import Annotated

import typer

from server.options import errors_in_one_line, with_settings
from server.settings import Settings

app = typer.Typer(
    help="NKAT: a KoboldCpp-compatible inference server for GGUF models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def serve(settings: Settings) -> None:
    """Serve a GGUF model over the Kobold and OpenAI APIs."""
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
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Measure how well a model predicts a text, by llama.cpp's definition."""
    from server.commands.perplexity import perplexity

    with errors_in_one_line():
        perplexity(model, text, ctx, windows=windows, threads=threads, device=device, as_json=as_json)


app.command("serve")(with_settings(serve))
app.command("demo")(with_settings(demo))
app.command("perplexity")(perplexity)


def main() -> None:
    """Entry of the console command: exit code 2 for what the user can mend, 130 after Ctrl-C."""
    app(prog_name="nkat")
