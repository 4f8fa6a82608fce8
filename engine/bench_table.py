"""Shows a benchmark to people: a bar while it runs, a table at its end."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engine import bench_report
from engine.bench_report import BenchReport, CompareReport

_SCALE = "TPE above 0.150 is best, 0.145 excellent, 0.140 good: a scale meant for models of 7B parameters."


@contextmanager
def shown_progress() -> Iterator[bench_report.Progress]:
    """A bar on stderr for each thing that is done, if a terminal is there to see it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        yield progress


def print_table(report: BenchReport | CompareReport) -> None:
    """Print it to stdout, in lines unbroken where stdout is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    if isinstance(report, CompareReport):
        console.print(_comparison(report))
    else:
        console.print(_bench(report))
    print(_conditions(report))
    if report.text is not None:
        print(_SCALE)


def _bench(report: BenchReport) -> Table:
    table = Table(title=Text(report.model), title_justify="left", show_header=False)
    theta = f"rank {report.rank}, gamma {report.gamma:g}" if report.theta_enabled else "off"
    table.add_row("theta", theta)
    table.add_row("decode", f"{report.tokens_per_second:.2f} tokens/s, {report.avg_latency_ms:.2f} ms each")
    if report.overhead_percentage is not None:
        table.add_row("overhead of theta", f"{report.overhead_percentage:+.2f} %")
    table.add_row("prefill, tokens/s", f"{report.prefill_tokens_per_second:.1f}")
    for row in _both(report):
        table.add_row(*row)
    if report.text is not None:
        table.add_row("perplexity", _measured(report.perplexity, report.perplexity_error))
        table.add_row("TPE", _score(report.tpe, report.tpe_class))
    return table


def _comparison(report: CompareReport) -> Table:
    title = f"{report.model}, theta of rank {report.rank} at gamma {report.gamma:g}"
    table = Table("", "nkat", "baseline", "nkat over baseline", title=Text(title), title_justify="left")
    lower, upper = report.overhead_quartiles
    table.add_row(
        "decode, tokens/s",
        f"{report.nkat_tokens_per_second:.2f}",
        f"{report.baseline_tokens_per_second:.2f}",
        f"{report.overhead_percentage:+.2f} % time (middle half: {lower:+.2f} to {upper:+.2f})",
    )
    table.add_row(
        "prefill, tokens/s",
        f"{report.prefill_tokens_per_second:.1f}",
        f"{report.prefill_tokens_per_second * (1 + report.prefill_overhead_percentage / 100):.1f}",
        f"{report.prefill_overhead_percentage:+.2f} % time",
    )
    if report.text is not None:
        change = _measured(
            report.estimated_perplexity_improvement, report.estimated_perplexity_improvement_error, sign="+"
        )
        table.add_row(
            "perplexity",
            _measured(report.nkat_perplexity, report.nkat_perplexity_error),
            _measured(report.baseline_perplexity, report.baseline_perplexity_error),
            f"{change} %, lower is better",
        )
        table.add_row(
            "TPE",
            _score(report.nkat_tpe, report.nkat_tpe_class),
            _score(report.baseline_tpe, report.baseline_tpe_class),
            "higher is better",
        )
    for name, value in _both(report):
        table.add_row(name, value)
    table.add_row("of that theta", f"{report.theta_bytes / 2**20:.1f} MiB")
    return table


def _both(report: BenchReport | CompareReport) -> Iterator[tuple[str, str]]:
    yield "load", f"{report.load_seconds:.2f} s"
    yield "memory, at most", f"{report.memory_bytes / 2**20:,.0f} MiB"


def _conditions(report: BenchReport | CompareReport) -> str:
    said = (
        f"{report.device}, {report.kernels} kernels, {report.threads} threads; "
        f"{report.iterations} iterations of {report.new_tokens} tokens behind {report.seq_len}"
    )
    return said if report.text is None else f"{said}; {report.windows} windows of {report.text}"


def _measured(value: float | None, error: float | None, sign: str = "") -> str:
    if value is None or error is None:
        return "no finite number"
    return f"{value:{sign}.3f} +/- {error:.3f}"


def _score(score: float | None, name: str | None) -> str:
    return "none" if score is None else f"{score:.4f} ({name})"
