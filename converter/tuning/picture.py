"""The search in one picture."""

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from converter.atomic import replacing
from converter.tuning.results import Results, Trial

_SIZE = (13, 9)
_DPI = 110
_BEST = {"marker": "*", "s": 220, "color": "tab:red", "zorder": 5, "label": "best"}


def write_picture(path: Path, results: Results, title: str) -> None:
    """Draw history, map, quality against cost, and importances as PNG. Raises `ConfigError`."""
    # A figure of its own, without pyplot, which keeps global state and looks for a screen.
    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.suptitle(title, parse_math=False)  # a model's name may hold a dollar sign
    axes = figure.subplots(2, 2)
    complete = [trial for trial in results.trials if trial.tpe is not None]
    _history(axes[0, 0], results, complete)
    _map(figure, axes[0, 1], results, complete)
    _trade(axes[1, 0], results, complete)
    _importances(axes[1, 1], results)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    with replacing(path, buffer.tell()) as file:
        file.write(buffer.getbuffer())


def _history(axes: Axes, results: Results, complete: list[Trial]) -> None:
    axes.set_title("History")
    axes.scatter([one.number for one in complete], [one.tpe or 0.0 for one in complete], s=28, label="trial")
    best, line = 0.0, []
    for trial in complete:
        best = max(best, trial.tpe or 0.0)
        line.append(best)
    axes.step([one.number for one in complete], line, where="post", color="tab:red", label="best so far")
    axes.axhline(results.baseline_tpe, color="gray", linestyle="--", label="baseline")
    axes.set_xlabel("trial")
    axes.set_ylabel("TPE (higher is better)")
    axes.legend()


def _map(figure: Figure, axes: Axes, results: Results, complete: list[Trial]) -> None:
    axes.set_title("Rank and gamma")
    points = axes.scatter(
        [one.rank for one in complete],
        [one.gamma for one in complete],
        c=[one.tpe or 0.0 for one in complete],
        s=60,
        cmap="viridis",
    )
    axes.scatter([results.best.rank], [results.best.gamma], **_BEST)  # type: ignore[arg-type]
    axes.set_xticks(sorted({one.rank for one in results.trials}))
    axes.set_xlabel("rank")
    axes.set_ylabel("gamma")
    axes.legend()
    figure.colorbar(points, ax=axes, label="TPE")


def _trade(axes: Axes, results: Results, complete: list[Trial]) -> None:
    axes.set_title("Quality against cost")
    for rank in sorted({one.rank for one in complete}):
        some = [one for one in complete if one.rank == rank]
        axes.scatter(
            [100 * one.overhead for one in some],
            [one.perplexity or 0.0 for one in some],
            s=36,
            label=f"rank {rank}",
        )
    front = results.pareto_front
    axes.plot(
        [100 * one.overhead for one in front],
        [one.perplexity or 0.0 for one in front],
        color="black",
        linewidth=1,
        label="Pareto front",
    )
    axes.scatter([0], [results.baseline_perplexity], marker="s", color="gray", label="baseline")
    axes.scatter([100 * results.best.overhead], [results.best.perplexity or 0.0], **_BEST)  # type: ignore[arg-type]
    axes.set_xlabel("decode overhead, %")
    axes.set_ylabel("perplexity (lower is better)")
    axes.legend()


def _importances(axes: Axes, results: Results) -> None:
    axes.set_title("Importance for the TPE")
    if not results.importances:
        axes.text(0.5, 0.5, "too few trials to tell", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    names = sorted(results.importances, key=lambda name: results.importances[name])
    axes.barh(names, [results.importances[name] for name in names])
    axes.set_xlabel("share of the differences between trials")
