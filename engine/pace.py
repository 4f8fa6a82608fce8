"""How many prompt tokens may go beside replies under way, so that these keep their pace.

Learns from the wall time of steps: how long one takes that holds replies alone, for about as many of them,
and by how much each prompt token beside them makes it longer. Both are medians of the last few steps, so that
a step that the machine held up counts little. Knows no clock: who steps measures.

Prompt tokens go into a step as far as it takes no more than `STRETCH` times as long as with replies alone.
Where not even `LEAST` tokens can, for each step costs the same whether few or many go into it, that many go
all the same, and steps with replies alone follow until the average is right.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median_low

STRETCH = 2.2
"""How many times as long as with replies alone steps may take on average. Replies shall keep a third of their
pace, some of which the estimates, the machine and longer contexts take."""
LEAST = 32
"""Prompt tokens in any step that holds some beside replies, if so many wait. Small models on processors
compute fewer in hardly less time: with 135M parameters, 8 take half of the time of 32."""
MOST_BETWEEN = 16
"""Steps in succession that hold replies alone while prompts wait."""
QUANTUM = 8
MEASURE_EVERY = 32
"""Steps with prompts after which one without shows again how long the replies alone take."""
_TRIFLE = 0.25
"""Of a step with replies alone: what a step with prompts takes too long by this much is not made up for."""
_KEPT = 5


@dataclass(frozen=True, slots=True)
class Load:
    """What a step holds: rows of replies under way, and prompt tokens."""

    rows: int = 0
    prompt: int = 0


class Pace:
    """Estimates for one engine on one machine."""

    def __init__(self) -> None:
        self._alone: dict[int, deque[float]] = {}
        """Seconds of the last steps with replies alone, for each regime."""
        self._unmeasured: dict[int, int] = {}
        """Steps with prompts since the last of them."""
        self._per_token: deque[float] = deque(maxlen=_KEPT)
        self._largest = LEAST
        """Prompt tokens beside replies in the last step: estimates hold near by."""
        self._debt = 0.0
        """Seconds that steps with prompts took beyond what they may."""
        self._between = 0

    def room(self, rows: int) -> int:
        """Prompt tokens that may go into a step beside so many replies, at least one.

        0 where steps with replies alone are due, at most `MOST_BETWEEN` in succession.
        """
        regime = _regime(rows)
        if self._unmeasured.get(regime, MEASURE_EVERY) >= MEASURE_EVERY:
            return 0
        alone = median_low(self._alone[regime])
        if self._debt > _TRIFLE * alone and self._between < MOST_BETWEEN:
            return 0
        if not self._per_token:
            return LEAST
        wanted = (STRETCH - 1) * alone / median_low(self._per_token)
        room = min(int(wanted), 2 * self._largest)
        return max(LEAST, room // QUANTUM * QUANTUM)

    def learn(self, load: Load, seconds: float) -> None:
        """Take note of how long a step took."""
        regime = _regime(load.rows)
        if load.rows and not load.prompt:
            self._alone.setdefault(regime, deque(maxlen=_KEPT)).append(seconds)
            self._unmeasured[regime] = 0
            self._between += 1
            self._debt = max(0.0, self._debt - (STRETCH - 1) * median_low(self._alone[regime]))
        elif load.rows and regime in self._alone:
            self._unmeasured[regime] += 1
            alone = median_low(self._alone[regime])
            # What a step costs anyway would be laid on the few tokens of a smaller one.
            if load.prompt >= LEAST:
                self._per_token.append(max(1e-9, (seconds - alone) / load.prompt))
                self._largest = load.prompt
            # By the estimate, for what the machine held up was no prompt's fault.
            extra = load.prompt * median_low(self._per_token) if self._per_token else 0.0
            self._debt = max(0.0, extra - (STRETCH - 1) * alone)
            self._between = 0
        elif not load.rows:
            self._debt = 0.0


def _regime(rows: int) -> int:
    """Steps with as many rows, within a factor of two, take about as long."""
    return rows.bit_length()
