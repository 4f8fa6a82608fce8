"""Finds what is left of an earlier context when its middle has been cut out. Knows no tensors.

A chat that has outgrown its context comes back without its oldest turns:

    before   | system | oldest turns | later turns |
    now      | system | later turns | new turn |

The keys and values of the later turns still lie in the cache, at positions that are too high by the length
of the gap. They are copied to fresh blocks, and the keys are turned back by that distance (RoFormer, Su et
al. 2021: a key at position p is the unturned key turned by p times the frequencies).

The result is not exact, in the way that llama.cpp's and KoboldCpp's context shift is not: the later turns
were computed while the oldest ones were in sight, and remember them a little. Hence shifted blocks, and
all that is computed behind them, serve their own sequence and those that continue it here, but are never
registered as prefixes.

The first token must be the same: models put much of their attention there, whatever it is, and fail
without it ("attention sinks", Xiao et al. 2023).
"""

from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.block_manager import BlockManager
from engine.sequence import Sequence

_LEAST = 200
"""KoboldCpp's figure."""
_REMEMBERED = 32
"""Earlier sequences that are looked through."""

_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Move:
    """Keys and values of n tokens that go to other slots of the cache.

    `sources`, `targets`: int64 [n], slots. `distances`: int64 [n] >= 0, by how many positions each token
    comes nearer to the front; 0 copies it as it is.
    """

    sources: _Integers
    targets: _Integers
    distances: _Integers


@dataclass(frozen=True, slots=True)
class Match:
    """Where the tokens of a sequence from `computed` to `end` lie in the cache.

    `sources`, `distances`: as those of a `Move`. `shifted_from`: the first of the tokens that is not exact;
    None if all are.
    """

    end: int
    sources: _Integers
    distances: _Integers
    shifted_from: int | None


@dataclass(frozen=True, slots=True)
class _Past:
    """A sequence that has given its blocks back: its computed tokens and, at that time, its blocks."""

    text: str
    exact: int
    """Tokens at its front whose keys and values are exact."""
    block_table: tuple[int, ...]
    versions: tuple[int, ...]


class ContextShift:
    """Remembers sequences that have ended, and matches new ones with them.

    Token ids are kept as characters: Python searches and compares strings in linear time whatever they
    hold, and there are more code points than a vocabulary may have tokens.
    """

    def __init__(self, blocks: BlockManager, *, least: int = _LEAST) -> None:
        """`least`: a match of fewer tokens is not worth the loss; they are computed anew."""
        self._blocks = blocks
        self._least = least
        self._pasts: deque[_Past] = deque(maxlen=_REMEMBERED)

    def remember(self, sequence: Sequence) -> None:
        """Take note of a sequence that is about to give its blocks back."""
        if sequence.anew or sequence.computed < self._least:
            return
        text = _as_text(sequence.tokens[: sequence.computed])
        # What a longer one begins with, nobody needs to look for in a shorter one.
        kept = (past for past in self._pasts if not text.startswith(past.text))
        past = _Past(
            text=text,
            exact=len(text) if sequence.shifted_from is None else sequence.shifted_from,
            block_table=tuple(sequence.block_table),
            versions=self._blocks.versions(sequence.block_table),
        )
        self._pasts = deque((*kept, past), maxlen=_REMEMBERED)

    def forget(self) -> None:
        """Remember nothing."""
        self._pasts.clear()

    def find(self, sequence: Sequence) -> Match | None:
        """What gives a new sequence the most computed tokens behind its cached prefix.

        At least one token is left to compute.
        """
        if len(sequence.tokens) - sequence.computed <= self._least:
            return None
        text = _as_text(sequence.tokens)
        matches = (self._match(text, sequence.computed, past) for past in reversed(self._pasts))
        return max(
            (match for match in matches if match is not None), key=lambda match: match.end, default=None
        )

    def apply(self, match: Match, sequence: Sequence) -> Move:
        """Count the matched tokens as computed; what makes that true before the next batch runs.

        The blocks that they go to must be in the sequence's table, and its alone.
        """
        places = np.arange(sequence.computed, match.end)
        sequence.computed, sequence.shifted_from = match.end, match.shifted_from
        return Move(match.sources, self._slots(sequence.block_table, places), match.distances)

    def _match(self, text: str, computed: int, past: _Past) -> Match | None:
        last = len(text) - 1
        prefix = min(_common(text, 0, past.text, 0), last)
        if prefix == 0:
            return None
        # Tokens up to `prefix` have kept their positions, those of the tail come `gap` nearer.
        start = max(computed, prefix)
        gap, end = 0, start
        if start + self._least <= last:
            place = past.text.find(text[start : start + self._least], start + 1)
            if place >= 0:
                gap = place - start
                end = min(last, start + _common(text, start, past.text, place))
        kept, tail = np.arange(computed, prefix), np.arange(start, end)
        distances = np.repeat((0, gap), (len(kept), len(tail)))
        places = np.concatenate((kept, tail)) + distances
        count = self._intact(past, places) if len(places) >= self._least else 0
        if count < self._least:
            return None
        end = computed + count
        exact = max(computed, min(prefix, past.exact))
        return Match(
            end=end,
            sources=self._slots(past.block_table, places[:count]),
            distances=distances[:count],
            shifted_from=exact if exact < end else None,
        )

    def _intact(self, past: _Past, places: _Integers) -> int:
        """How many of these tokens of the past, from the first on, are in their blocks still."""
        intact = np.equal(self._blocks.versions(past.block_table), past.versions)
        lost = ~intact[places // self._blocks.block_size]
        return int(lost.argmax()) if lost.any() else len(places)

    def _slots(self, block_table: Tokens[int], places: _Integers) -> _Integers:
        size = self._blocks.block_size
        return np.array(block_table)[places // size] * size + places % size


def _as_text(tokens: Tokens[int]) -> str:
    return "".join(map(chr, tokens))


def _common(one: str, at: int, other: str, there: int) -> int:
    """How far one[at:] and other[there:] are the same."""
    low, high = 0, min(len(one) - at, len(other) - there)
    while low < high:
        middle = (low + high + 1) // 2
        if one[at + low : at + middle] == other[there + low : there + middle]:
            low = middle
        else:
            high = middle - 1
    return low
