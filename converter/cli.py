"""The command `convert`: parses, converts, tells. What it needs is imported when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import NO_MEMORY, ConfigError, NkatError
from engine.theta.names import DEFAULT_GAMMA, DEFAULT_RANK

if TYPE_CHECKING:
    from converter.job import ConversionJob

_INTERRUPTED = 130


def convert(
    model: Annotated[
        Path, typer.Option("--input", "--model", help="GGUF file; the first part of a split model")
    ],
    output: Annotated[
        Path | None, typer.Option(help=".nkat file to write; unset: beside the input, under its name")
    ] = None,
    method: Annotated[
        str, typer.Option(help="train: on text, or towards --reference; residual: from --reference; svd")
    ] = "train",
    theta_rank: Annotated[int, typer.Option(help="2, 4, 6 or 8")] = DEFAULT_RANK,
    theta_gamma: Annotated[float, typer.Option(help="strength of theta, up to 1")] = DEFAULT_GAMMA,
    optimize_rank: Annotated[
        bool, typer.Option("--optimize-rank", help="try all ranks and keep the one with the best TPE")
    ] = False,
    selective_layers: Annotated[
        list[str] | None,
        typer.Option(help="tensors to correct: GGUF or LLaMA names, or globs; repeatable; unset: all"),
    ] = None,
    target_size: Annotated[int, typer.Option(help="svd: edge of the block taken of each matrix")] = 512,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="UTF-8 text to make theta with; repeatable; unset: prose that comes with Python"),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="GGUF file of the same model in a better quantisation")
    ] = None,
    eval_text: Annotated[
        Path | None, typer.Option(help="UTF-8 text to report on; unset: the end of the calibration text")
    ] = None,
    eval_windows: Annotated[int, typer.Option(help="windows of each text to report on")] = 20,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="do not measure the result")] = False,
    theta_only: Annotated[
        bool, typer.Option("--theta-only", help="write theta without the model, for --theta-path")
    ] = False,
    export_lora: Annotated[
        Path | None, typer.Option(help="write theta as a llama.cpp LoRA adapter too, for --lora")
    ] = None,
    steps: Annotated[int, typer.Option(help="train: steps, one window of text each")] = 100,
    learning_rate: Annotated[float, typer.Option(help="train: the largest learning rate")] = 2e-3,
    ctx: Annotated[int, typer.Option(help="tokens of one window")] = 512,
    windows: Annotated[int, typer.Option(help="residual: windows that the inputs are taken from")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="the same seed and input give the same bytes")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; unset: the physical cores")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from what an interrupted conversion left")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Make theta for a model, measure what it does on text that did not make it, and write it."""
    try:
        from converter.job import ConversionJob, Method

        if method not in set(Method):
            raise ConfigError(f"--method {method!r:.40} is none of {', '.join(Method)}")
        job = ConversionJob(
            input=model,
            output=_default_output(model, None if optimize_rank else theta_rank, theta_only=theta_only)
            if output is None
            else output,
            method=Method(method),
            rank=theta_rank,
            gamma=theta_gamma,
            optimize_rank=optimize_rank,
            choosing_windows=eval_windows if optimize_rank else 0,
            selective_layers=tuple(selective_layers or ()),
            target_size=target_size,
            calibration=tuple(calibration or ()),
            reference=reference,
            eval_text=eval_text,
            eval_windows=eval_windows,
            evaluate=not no_eval,
            theta_only=theta_only,
            export_lora=export_lora,
            steps=steps,
            learning_rate=learning_rate,
            window=ctx,
            windows=windows,
            seed=seed,
            device=device,
            threads=threads,
            resume=resume,
        )
        _run(job, as_json=as_json)
    except NkatError as error:
        typer.echo(f"nkat: {error}", err=True)
        raise SystemExit(2) from None
    except MemoryError:
        typer.echo(f"nkat: {NO_MEMORY}", err=True)
        raise SystemExit(2) from None


def _run(job: "ConversionJob", *, as_json: bool) -> None:
    import json

    from engine.preparation import prepare_for_engine

    prepare_for_engine(job.input)
    from converter.console import as_dict, print_conversion, shown_progress, warnings
    from converter.conversion import convert

    try:
        with shown_progress() as progress:
            conversion = convert(job, progress)
    except KeyboardInterrupt:
        kept = (
            f"say --resume to go on from {job.checkpoint}" if job.checkpoint.exists() else "nothing is left"
        )
        typer.echo(f"nkat: interrupted; {kept}", err=True)
        raise SystemExit(_INTERRUPTED) from None
    if as_json:
        print(json.dumps(as_dict(job, conversion), indent=2, allow_nan=False))
    else:
        print_conversion(job, conversion)
    for warning in warnings(job, conversion):
        typer.echo(f"nkat: warning: {warning}", err=True)


def _default_output(model: Path, rank: int | None, *, theta_only: bool) -> Path:
    if theta_only:
        return model.with_name(f"{model.stem}.theta{'' if rank is None else f'_rank{rank}'}.bin")
    return model.with_suffix(".nkat")


def several_values(
    arguments: list[str], flags: tuple[str, ...] = ("--calibration", "--selective-layers")
) -> list[str]:
    """The arguments with `--flag a b` spelled as `--flag a --flag b`, which is what the parser knows."""
    spelled: list[str] = []
    latest: str | None = None
    for argument in arguments:
        if argument.startswith("-"):
            latest = argument if argument in flags else None
        elif latest is not None and spelled[-1] != latest:
            spelled.append(latest)
        spelled.append(argument)
    return spelled
