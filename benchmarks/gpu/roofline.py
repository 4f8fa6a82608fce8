"""The roofline of a card, and how near to it the model's steps come, as a picture.

Williams, Waterman and Patterson 2009: operations/s against operations per byte that is read from the memory,
below what the bandwidth and what the arithmetic allow. Weights count as the bytes of a step, and keys and
values of the contexts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SIZE = (9, 6)
_DPI = 120
_MARGIN = 4.0
"""Factor by which the picture goes on beyond its points."""


@dataclass(frozen=True, slots=True)
class Point:
    """Steps of one kind: operations for each byte, and operations/s."""

    label: str
    kind: str
    """`decode` or `prefill`."""
    intensity: float
    flops_per_second: float


def points(figures: Mapping[str, Any], context: int) -> Iterator[Point]:
    """Of each number of streams, behind `context` tokens each, and of each prompt that was read at once."""
    if "weight_bytes" not in figures:
        return
    weights, flops = figures["weight_bytes"], figures["weight_flops"]
    per_token = figures["cache_bytes_per_token"]
    for count, found in figures.get("decode", {}).items():
        read = weights + int(count) * context * per_token
        work = int(count) * flops
        yield Point(count, "decode", work / read, work / found["step_seconds"])
    for name, found in figures.get("prefill", {}).items():
        if name.isdigit():
            work = int(name) * flops
            seconds = found["first_token_seconds"]
            yield Point(name, "prefill", work / (weights + int(name) * per_token), work / seconds)


def write_roofline(path: Path, figures: Mapping[str, Any], context: int, title: str) -> None:
    """Draw it as PNG; wants matplotlib. Raises `KeyError` where the card's limits were not measured."""
    # A figure of its own, without pyplot, which keeps global state and looks for a screen.
    from matplotlib.figure import Figure

    bandwidth, peak = figures["copy_bytes_per_second"], figures["bf16_flops_per_second"]
    drawn = list(points(figures, context))
    ridge = peak / bandwidth
    lowest = min([ridge, *(point.intensity for point in drawn)]) / _MARGIN
    highest = max([ridge, *(point.intensity for point in drawn)]) * _MARGIN
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [lowest, ridge, highest],
        [lowest * bandwidth, peak, peak],
        color="black",
        label=f"copy {bandwidth / 1e12:.2f} TB/s, bfloat16 {peak / 1e12:.0f} TFLOP/s",
    )
    for kind, marker in (("decode", "o"), ("prefill", "s")):
        of_kind = [point for point in drawn if point.kind == kind]
        axes.plot(
            [point.intensity for point in of_kind],
            [point.flops_per_second for point in of_kind],
            marker,
            label=f"{kind}, {'streams' if kind == 'decode' else 'tokens'}",
        )
        for point in of_kind:
            place = (point.intensity, point.flops_per_second)
            axes.annotate(point.label, place, xytext=(6, -10), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte read", ylabel="FLOP/s", title=title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=_DPI)
