"""Two sides measured in turn, and what their pairs say about the ratio of the two."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def take_turns(pairs: int, sides: Sequence[Callable[[], T]]) -> Iterator[tuple[T, ...]]:
    """Measure all sides once for each pair; every second time in reverse, so that no side always goes first.

    The results come in the order of `sides`.
    """
    for number in range(pairs):
        order = list(range(len(sides)))
        if number % 2:
            order.reverse()
        results = {at: sides[at]() for at in order}
        yield tuple(results[at] for at in range(len(sides)))


@dataclass(frozen=True, slots=True)
class Pairs:
    """One figure of both sides, in the same unit: `ours[i]` and `theirs[i]` were measured back to back."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over theirs of each pair, in which what slows both sides cancels."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def median(self) -> float:
        """The median of the ratios, not the ratio of the medians."""
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between them lies the middle half of the ratios."""
        ratios = self.ratios
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return lower, upper
