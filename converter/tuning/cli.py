"""The command `optimize`: parses, searches, tells. What it needs is imported when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import NO_MEMORY, ConfigError, NkatError

if TYPE_CHECKING:
    from converter.tuning.plan import TuningPlan

_INTERRUPTED = 130


def optimize(
    model: Annotated[Path, typer.Option(help="GGUF file; the first part of a split model")],
    mode: Annotated[
        str, typer.Option(help="quick: 12 trials; full: 100, over layers too; custom: --trials")
    ] = "quick",
    trials: Annotated[int | None, typer.Option(min=1, help="trials, whatever the mode")] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="folder for the results; unset: MODEL-nkat in the current one")
    ] = None,
    target_rank: Annotated[int | None, typer.Option(help="try this rank only: 2, 4, 6 or 8")] = None,
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
    eval_windows: Annotated[int, typer.Option(min=1, help="windows to choose by, and to report on")] = 20,
    steps: Annotated[int, typer.Option(help="steps of training")] = 100,
    learning_rate: Annotated[float, typer.Option(help="the largest learning rate of the training")] = 2e-3,
    ctx: Annotated[int, typer.Option(help="tokens of one window")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="of training and search")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; unset: the physical cores")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the search that the folder holds")
    ] = False,
) -> None:
    """Find the rank and strength of theta with the best TPE; theta is made once, and cut for each trial."""
    try:
        from converter.job import ConversionJob
        from converter.tuning.plan import TRIALS, Mode, TuningPlan
        from engine.theta import RANKS

        if mode not in set(Mode):
            raise ConfigError(f"--mode {mode!r:.40} is none of {', '.join(Mode)}")
        count = TRIALS.get(Mode(mode), trials) if trials is None else trials
        if count is None:
            raise ConfigError("--mode custom needs --trials")
        folder = Path(f"{model.stem}-nkat") if output_dir is None else output_dir
        rank = max(RANKS) if target_rank is None else target_rank
        job = ConversionJob(
            input=model,
            output=folder / f"theta_rank{rank}.bin",
            theta_only=True,
            rank=rank,
            calibration=tuple(calibration or ()),
            reference=reference,
            choosing_windows=eval_windows,
            eval_text=eval_text,
            eval_windows=eval_windows,
            steps=steps,
            learning_rate=learning_rate,
            window=ctx,
            seed=seed,
            device=device,
            threads=threads,
        )
        _run(TuningPlan(job, folder, Mode(mode), count, target_rank, resume))
    except NkatError as error:
        typer.echo(f"nkat: {error}", err=True)
        raise SystemExit(2) from None
    except MemoryError:
        typer.echo(f"nkat: {NO_MEMORY}", err=True)
        raise SystemExit(2) from None


def _run(plan: "TuningPlan") -> None:
    from engine.preparation import prepare_for_engine

    prepare_for_engine(plan.job.input)
    try:
        from converter.console import shown_progress
        from converter.tuning.console import print_tuning, warnings
        from converter.tuning.tuner import tune
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("optuna", "matplotlib"):
            raise
        raise ConfigError(f"{package} is not installed: pip install 'nkat[tuning]'") from None
    try:
        with shown_progress() as progress:
            tuning = tune(plan, progress)
    except KeyboardInterrupt:
        typer.echo("nkat: interrupted; the same command with --resume goes on", err=True)
        raise SystemExit(_INTERRUPTED) from None
    print_tuning(plan, tuning)
    for warning in warnings(tuning):
        typer.echo(f"nkat: warning: {warning}", err=True)
