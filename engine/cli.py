"""The commands `bench` and `compare`: parse, measure, tell. What they need is imported when they run.

The progress goes to stderr, the result to stdout.
"""

import inspect
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import NO_MEMORY, ConfigError, NkatError
from engine.native import NATIVE_KERNELS

if TYPE_CHECKING:
    from engine.bench_report import BenchReport, CompareReport
    from engine.text import Text

_INTERRUPTED = 130
_USUAL_WINDOW = 512


def bench(
    model: Annotated[Path, typer.Option(help="GGUF or .nkat file; the first part of a split model")],
    seq_len: Annotated[
        int, typer.Option(min=1, help="tokens of the prompt behind which decoding is timed")
    ] = 128,
    new_tokens: Annotated[
        int, typer.Option(min=1, help="tokens decoded in each iteration, made even; with theta twice")
    ] = 32,
    iterations: Annotated[int, typer.Option(min=1, help="how often that is done")] = 5,
    compare: Annotated[bool, typer.Option("--compare", help="do what the command compare does")] = False,
    theta_path: Annotated[
        Path | None, typer.Option(help="file with theta; unset: the model file's own")
    ] = None,
    no_theta: Annotated[bool, typer.Option("--no-theta", help="leave theta out")] = False,
    theta_gamma: Annotated[
        float | None, typer.Option(help="strength of theta, 0 to 1; unset: its file's")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:N, or layers on each of several: cpu=9,cuda:0=24")
    ] = "auto",
    quantkv: Annotated[int, typer.Option(min=0, max=2, help="KV cache on GPUs: 0 f16, 1 q8, 2 q4")] = 0,
    no_cuda: Annotated[bool, typer.Option("--no-cuda", help="the same as --device cpu")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; unset: the physical cores")] = None,
    kernels: Annotated[
        str,
        typer.Option(
            envvar="NKAT_KERNELS",
            help=f"auto for the fastest, triton, {', '.join(NATIVE_KERNELS)} or reference",
        ),
    ] = "auto",
    text: Annotated[
        Path | None, typer.Option(help="UTF-8 text to predict; unset: prose that comes with Python")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="at most so many windows of the text")] = 8,
    ctx: Annotated[
        int | None, typer.Option(min=8, help="tokens of one window; unset: 512, or what the model can")
    ] = None,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="measure no perplexity")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    output: Annotated[Path | None, typer.Option(help="file to write the result to, as JSON")] = None,
    benchmark: Annotated[bool, typer.Option("--benchmark", help="taken for the guide's sake")] = False,
) -> None:
    """Measure speed, memory and perplexity of a model, and what its theta costs."""
    try:
        report = _measure(
            model,
            (seq_len, new_tokens, iterations),
            compare=compare,
            theta=not no_theta,
            theta_path=theta_path,
            gamma=theta_gamma,
            device="cpu" if no_cuda else device,
            quantkv=quantkv,
            kernels=kernels,
            threads=threads,
            text=text,
            windows=windows,
            window=ctx,
            evaluate=not no_eval,
            output=output,
        )
        as_text = json.dumps(asdict(report), indent=2, allow_nan=False)
        if as_json:
            print(as_text)
        else:
            from engine.bench_table import print_table

            print_table(report)
        if output is not None:
            _write(output, as_text + "\n")
    except NkatError as error:
        typer.echo(f"nkat: {error}", err=True)
        raise SystemExit(2) from None
    except MemoryError:
        typer.echo(f"nkat: {NO_MEMORY}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


def _fixed(command: Callable[..., None], name: str, text: str, **values: Any) -> Callable[..., None]:
    """The command with some options settled, and no longer offered."""

    def run(**options: Any) -> None:
        command(**options, **values)

    parameters = [one for one in inspect.signature(command).parameters.values() if one.name not in values]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__name__, run.__doc__ = name, text
    return run


compare = _fixed(
    bench,
    "compare",
    "Measure a model with theta and without, interleaved in one process: speed, perplexity, TPE.",
    compare=True,
    no_theta=False,
)


def _measure(
    model: Path,
    counts: tuple[int, int, int],
    *,
    compare: bool,
    theta: bool,
    theta_path: Path | None,
    gamma: float | None,
    device: str,
    quantkv: int,
    kernels: str,
    threads: int | None,
    text: Path | None,
    windows: int,
    window: int | None,
    evaluate: bool,
    output: Path | None,
) -> "BenchReport | CompareReport":
    """`counts`: tokens of the prompt, new tokens, iterations. What can fail quickly comes first."""
    from engine.architectures import open_model
    from engine.config import EngineConfig
    from engine.preparation import set_up_process
    from engine.text import Text
    from engine.theta.names import VERSION_KEY

    if output is not None and not output.resolve().parent.is_dir():
        raise ConfigError(f"{output}: there is no such folder")
    content = None if text is None or not evaluate else Text.read([text])
    file = open_model(model)
    trained, own_theta = file.config.trained_context, VERSION_KEY in file.file.metadata
    file.file.close()
    if compare and not (theta and (own_theta or theta_path is not None)):
        raise ConfigError(
            f"{model}: without theta there is nothing to compare; take a .nkat file or say --theta-path FILE"
        )
    if evaluate and content is None:
        content = _usual_text(model if theta_path is None else theta_path)
    set_up_process()
    from engine.bench_report import BenchPlan, run_bench, run_compare  # imports torch
    from engine.bench_table import shown_progress
    from engine.engine import Engine

    plan = BenchPlan(*counts, content, windows, min(_USUAL_WINDOW, trained) if window is None else window)
    config = EngineConfig(
        model,
        context_length=plan.context_length,
        kv_tokens=plan.context_length,
        threads=threads,
        device=device,
        quantkv=quantkv,
        kernels=kernels,
        theta=theta,
        theta_path=theta_path,
        gamma=gamma,
    )
    with shown_progress() as progress:
        progress("loading", 0, 1)
        start = time.perf_counter()
        engine = Engine.load(config)
        load_seconds = time.perf_counter() - start
        progress("loading", 1, 1)
        return (run_compare if compare else run_bench)(engine, load_seconds, plan, progress)


def _usual_text(theta_file: Path) -> "Text":
    """Prose, or source code where theta was made with the prose: what made theta cannot judge it."""
    from engine.gguf import open_gguf
    from engine.text import BUILT_IN, Text
    from engine.theta.names import CALIBRATION_PREFIX

    with open_gguf(theta_file) as file:
        made_with = file.metadata.get(f"{CALIBRATION_PREFIX}text")
    return Text.code() if made_with == BUILT_IN else Text.built_in()


def _write(path: Path, text: str) -> None:
    """Write the file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
