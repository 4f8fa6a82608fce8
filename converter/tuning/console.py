"""What a user sees of a search's outcome."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from converter.console import quality_table
from converter.evaluation import Verdict
from converter.tuning.plan import TuningPlan
from converter.tuning.tuner import Tuning
from engine.theta.score import tpe_class

_SHOWN = 5


def print_tuning(plan: TuningPlan, tuning: Tuning) -> None:
    """Print the best trials beside the baseline, the report on the winner, and what was written."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    results = tuning.results
    title = f"{len(results.trials)} trials, the best {_SHOWN} and the baseline"
    table = Table(
        "rank", "gamma", "layers", "perplexity", "overhead", "TPE", "class (meant for 7B)", title=title
    )
    complete = sorted(
        (trial for trial in results.trials if trial.tpe is not None), key=lambda one: -(one.tpe or 0.0)
    )
    for one in complete[:_SHOWN]:
        score = one.tpe or 0.0
        table.add_row(
            str(one.rank),
            f"{one.gamma:.3f}",
            one.layers,
            f"{one.perplexity:.3f}",
            f"{one.overhead:+.1%}",
            f"{score:.5f}",
            tpe_class(score),
        )
    score = results.baseline_tpe
    table.add_row("none", "", "", f"{results.baseline_perplexity:.3f}", "", f"{score:.5f}", tpe_class(score))
    console.print(table)
    if tuning.reports:
        console.print(quality_table(tuning.reports))
    print(f"wrote {tuning.model}, and the figures and the picture of the search to {plan.folder}")


def warnings(tuning: Tuning) -> Iterator[str]:
    """What must not be overlooked."""
    results = tuning.results
    if (results.best.tpe or 0.0) <= results.baseline_tpe:
        yield "no setting has a better TPE than the model without theta"
    for report in tuning.reports:
        if report.verdict is Verdict.WORSE:
            yield f"on {report.text} the model is worse with this theta than without it"
