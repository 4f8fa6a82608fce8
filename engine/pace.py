"""How many prompt tokens may go beside replies under way, so that these keep their pace.

Learns from the wall time of steps: how long one takes that holds replies alone, for about as many of them,
and by how much each prompt token beside them makes it longer. Both are medians of the last few steps, so that
a step that the machine held up counts little. Knows no clock: who steps measures.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median_low

STRETCH = 2.5
"""How many times as long as with replies alone a step may take."""
LEAST = 16
"""Prompt tokens beside replies in any step that is not a measurement, however slow they are."""
QUANTUM = 8
MEASURE_EVERY = 32
"""Steps with prompts after which one without shows again how long the replies alone take."""
_KEPT = 5
_UNKNOWN = 1 << 30


@dataclass(frozen=True, slots=True)
class Load:
    """What a step holds: rows of replies under way, and prompt tokens."""

    rows: int = 0
    prompt: int = 0


class Pace:
    """Estimates for one engine on one machine."""

    def __init__(self) -> None:
        self._alone: dict[int, deque[float]] = {}
        self._steps_since: dict[int, int] = {}
        self._per_token: deque[float] = deque(maxlen=_KEPT)
        self._largest = LEAST
        """Prompt tokens beside replies that were tried last, at least: estimates hold near by."""

    def room(self, rows: int) -> int:
        """Prompt tokens that may go into a step with so many replies, at least one.

        0 where that is not to be said before a step has shown how long the replies alone take; never twice
        in succession for as many rows.
        """
        regime = _regime(rows)
        if self._steps_since.get(regime, _UNKNOWN) >= MEASURE_EVERY:
            return 0
        if not self._per_token:
            return LEAST
        wanted = (STRETCH - 1) * median_low(self._alone[regime]) / median_low(self._per_token)
        room = min(int(wanted), 2 * self._largest)
        return max(LEAST, room // QUANTUM * QUANTUM)

    def learn(self, load: Load, seconds: float) -> None:
        """Take note of how long a step took."""
        regime = _regime(load.rows)
        if load.rows and not load.prompt:
            self._alone.setdefault(regime, deque(maxlen=_KEPT)).append(seconds)
            self._steps_since[regime] = 0
        elif load.rows and regime in self._alone:
            self._steps_since[regime] += 1
            # What a step costs anyway would be laid on the few tokens of a smaller one.
            if load.prompt >= LEAST:
                extra = max(0.0, seconds - median_low(self._alone[regime]))
                self._per_token.append(max(1e-9, extra / load.prompt))
                self._largest = load.prompt


def _regime(rows: int) -> int:
    """Steps with as many rows, within a factor of two, take about as long."""
    return rows.bit_length()
