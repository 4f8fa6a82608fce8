"""What a user sees of a conversion: progress on stderr, the result on stdout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from converter.conversion import Conversion
from converter.evaluation import Mean, Quality, Verdict
from converter.factors import Progress as Report
from converter.job import ConversionJob, Method
from engine.theta.score import tpe_class

TEXTS = 2
"""A report is on the kind of text that theta was made for, and on another kind."""
WINDOW_SECONDS = 3600.0
"""Steps may be slow: the time left is estimated from all that happened in the last hour."""


@contextmanager
def shown_progress() -> Iterator[Report]:
    """A bar for each stage, with the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=WINDOW_SECONDS) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, note=note)

        yield report


def print_conversion(job: ConversionJob, conversion: Conversion) -> None:
    """Print what was measured and written."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    if conversion.trials:
        console.print(_trials(conversion))
    if conversion.reports:
        console.print(quality_table(conversion.reports))
    theta = conversion.theta
    kind = f"{theta.method}, rank {theta.rank}, gamma {theta.gamma:g}, {len(theta.factors)} tensors"
    print(f"wrote {'theta' if job.theta_only else 'the model with theta'} ({kind}): {job.output}")
    if job.export_lora is not None:
        print(f"wrote theta as an adapter: {job.export_lora}")


def warnings(job: ConversionJob, conversion: Conversion) -> Iterator[str]:
    """What must not be overlooked."""
    if not conversion.reports:
        yield "the result was not measured: nobody knows yet whether it helps"
    elif len(conversion.reports) < TEXTS:
        yield "the calibration text is too short to hold any of it back: only the other text tells"
    for report in conversion.reports:
        if report.verdict is Verdict.WORSE:
            yield f"on {report.text} the model is worse with this theta than without it"
    if conversion.reports and conversion.reports[0].verdict is Verdict.SAME:
        yield f"on {conversion.reports[0].text} this theta makes no difference beyond the error"
    if job.method is Method.SVD:
        yield "the method svd is kept for the guide's sake; train and residual are those that help"


def as_dict(job: ConversionJob, conversion: Conversion) -> dict[str, Any]:
    """The result as what JSON can hold."""
    theta = conversion.theta
    return {
        "output": str(job.output),
        "export_lora": None if job.export_lora is None else str(job.export_lora),
        "method": theta.method,
        "rank": theta.rank,
        "gamma": theta.gamma,
        "tensors": len(theta.factors),
        "base_sha256": theta.base_sha256,
        "reports": [report.notes() for report in conversion.reports],
        "trials": [asdict(trial) for trial in conversion.trials],
        "warnings": list(warnings(job, conversion)),
    }


def quality_table(reports: tuple[Quality, ...]) -> Table:
    """What theta does on each text, the baseline beside it."""
    table = Table(
        "text", "windows", "perplexity without", "with theta", "change", "KL to baseline", "verdict"
    )
    for one in reports:
        table.add_row(
            one.text,
            str(one.windows),
            _plus_minus(one.before, 3),
            _plus_minus(one.after, 3),
            f"{one.relative:+.2%}",
            _plus_minus(one.divergence, 4),
            one.verdict.value,
        )
    return table


def _trials(conversion: Conversion) -> Table:
    table = Table("rank", "perplexity", "overhead", "TPE", "class (meant for 7B)", "")
    for trial in conversion.trials:
        chosen = "chosen" if trial.rank == conversion.theta.rank else ""
        table.add_row(
            str(trial.rank),
            f"{trial.perplexity:.3f}",
            f"{trial.overhead:+.1%}",
            f"{trial.tpe:.5f}",
            tpe_class(trial.tpe),
            chosen,
        )
    return table


def _plus_minus(mean: Mean, digits: int) -> str:
    return f"{mean.value:.{digits}f} ± {mean.error:.{digits}f}"
