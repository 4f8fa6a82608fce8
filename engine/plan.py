"""What one step computes. Knows no torch."""

from dataclasses import dataclass

from engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` to `start + count` of a sequence, to be computed in this step.

    `draft`: tokens that may come next and are computed behind them on trial. They are not the sequence's.
    """

    sequence: Sequence
    start: int
    count: int
    draft: tuple[int, ...] = ()

    @property
    def completes(self) -> bool:
        """Whether the sequence has caught up after this chunk, so that a token can be drawn."""
        return self.start + self.count == len(self.sequence.tokens)


Plan = list[Chunk]
