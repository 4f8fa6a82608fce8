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

Models put much of their attention on the first tokens, whatever they are, and fail without them ("attention
sinks", Xiao et al. 2023). Where not even the first token has stayed, a few are computed in their new places.
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
_SINKS = 4
"""Tokens that are computed at the front where none has stayed, as many as Xiao et al. found to be enough."""
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
    """Where tokens of a sequence lie in the cache: those of `kept`, and those of `tail`.

    `kept` begins where the sequence is computed to, `tail` behind it, perhaps with a few tokens between that
    are to be computed. `sources`, `distances`: as a `Move` has them, for both, n in all. `shifted_from`: the
    first token that is not exact; None if all are.
    """

    kept: range
    tail: range
    sources: _Integers
    distances: _Integers
    shifted_from: int | None

    def apply(self, sequence: Sequence) -> None:
        """Count the tokens as computed, as soon as all in front of them are."""
        sequence.computed, sequence.shifted_from = self.kept.stop, self.shifted_from
        sequence.moved = self.tail or None
        sequence.advance(0)

    def move(self, block_table: Tokens[int], block_size: int) -> Move:
        """What makes that true before the next batch runs.

        `block_table`: the sequence's. It covers the tokens, and their blocks are the sequence's alone.
        """
        places = np.array([*self.kept, *self.tail])
        return Move(self.sources, _slots(block_table, places, block_size), self.distances)


@dataclass(frozen=True, slots=True)
class _Past:
    """A sequence that has given its blocks back: its computed tokens and, at that time, its blocks."""

    text: str
    theta: int
    """The root of its setting of theta."""
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
        exact = sequence.computed if sequence.shifted_from is None else sequence.shifted_from
        # What a longer one begins with, nobody needs to look for in a shorter one.
        root = sequence.theta.root
        kept = (past for past in self._pasts if past.theta != root or not text.startswith(past.text))
        past = _Past(
            text=text,
            theta=root,
            exact=exact,
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
        pasts = (past for past in reversed(self._pasts) if past.theta == sequence.theta.root)
        matches = (self._match(text, sequence.computed, past) for past in pasts)
        return max(
            (match for match in matches if match is not None),
            key=lambda match: len(match.sources),
            default=None,
        )

    def _match(self, text: str, computed: int, past: _Past) -> Match | None:
        prefix = min(_common(text, 0, past.text, 0), len(text) - 1)
        # Tokens up to the end of `kept` have kept their positions, those of the tail come nearer by `gap`.
        kept = range(computed, max(computed, prefix))
        tail, gap = self._tail(text, kept.stop or _SINKS, past)
        distances = np.repeat((0, gap), (len(kept), len(tail)))
        places = np.array([*kept, *tail]) + distances
        count = self._intact(past, places) if len(places) >= self._least else 0
        if count < self._least:
            return None
        kept, tail = kept[:count], tail[: max(0, count - len(kept))]
        exact = min(kept.stop, max(computed, past.exact))
        behind = tail.start if tail else None
        return Match(
            kept=kept,
            tail=tail,
            sources=_slots(past.block_table, places[:count], self._blocks.block_size),
            distances=distances[:count],
            shifted_from=exact if exact < kept.stop else behind,
        )

    def _tail(self, text: str, start: int, past: _Past) -> tuple[range, int]:
        """The tokens from `start` on that the past has further on, and by how much further; maybe none."""
        last = len(text) - 1
        if start + self._least > last:
            return range(start, start), 0
        place = past.text.find(text[start : start + self._least], start + 1)
        if place < 0:
            return range(start, start), 0
        return range(start, min(last, start + _common(text, start, past.text, place))), place - start

    def _intact(self, past: _Past, places: _Integers) -> int:
        """How many of these tokens of the past, from the first on, are in their blocks still."""
        intact = np.equal(self._blocks.versions(past.block_table), past.versions)
        lost = ~intact[places // self._blocks.block_size]
        return int(lost.argmax()) if lost.any() else len(places)


def _slots(block_table: Tokens[int], places: _Integers, block_size: int) -> _Integers:
    """Where in the cache tokens of a sequence with this table lie."""
    return np.array(block_table)[places // block_size] * block_size + places % block_size


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
