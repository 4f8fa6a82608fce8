"""Where a growing context repeats its own end."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int32]

_STEPS = 32
"""More new tokens than this are not taken in one by one."""


class SuffixMatches:
    """For each place of the last tokens of a context, how long a repetition of the context's end ends there.

    Kept from call to call, because one more token changes all lengths in the same way: where the new
    token stands the length grows by one from its left neighbour's, elsewhere it is 0. A context that went
    back or changed is worked out anew. `window` tokens are looked at, or all if it is <= 0.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._start = 0
        """Place in the context of the first token that is kept."""
        self._known: list[int] = []
        """The tokens that are kept, to tell whether the context is still the same."""
        self._tokens: Tokens = np.empty(0, np.int32)
        self._lengths: Lengths = np.empty(0, np.int32)

    def update(self, tokens: Sequence[int]) -> tuple[Tokens, Lengths]:
        """The last tokens of the context and a length for each; both int32 [n], valid until the next call.

        length[j] is the largest k such that the k tokens that end with j are the context's last k tokens,
        all within the window. The last length is n.
        """
        size = len(tokens) if self._window <= 0 else min(self._window, len(tokens))
        first = len(tokens) - size
        known = len(self._known)
        end = self._start + known
        grown = len(tokens) - end
        if 0 <= grown <= _STEPS and first < end and list(tokens[self._start : end]) == self._known:
            if known + grown > len(self._tokens):
                self._move(first, 2 * size + _STEPS)
            for token in tokens[end:]:
                self._append(token)
        else:
            self._start, self._known = first, list(tokens[first:])
            self._tokens = np.array(self._known, dtype=np.int32)
            self._lengths = suffix_lengths(self._tokens)
        last = slice(len(self._known) - size, len(self._known))
        return self._tokens[last], np.minimum(self._lengths[last], np.arange(1, size + 1, dtype=np.int32))

    def _append(self, token: int) -> None:
        self._known.append(token)
        n = len(self._known)
        self._tokens[n - 1] = token
        lengths = self._lengths[:n]
        lengths[1:] = lengths[:-1] + 1
        lengths[0] = 1
        lengths *= self._tokens[:n] == token

    def _move(self, first: int, room: int) -> None:
        """Forget what lies in front of `first`, a place in the context, and make room behind the rest."""
        dropped = first - self._start
        kept = slice(dropped, len(self._known))
        tokens, lengths = np.empty(room, np.int32), np.empty(room, np.int32)
        self._known = self._known[kept]
        self._start = first
        tokens[: len(self._known)], lengths[: len(self._known)] = self._tokens[kept], self._lengths[kept]
        self._tokens, self._lengths = tokens, lengths


def suffix_lengths(tokens: Tokens) -> Lengths:
    """For each place the length of the longest common suffix of tokens[: j + 1] and all; int32 [n].

    The Z-function of the reversed tokens (Gusfield, Algorithms on Strings, Trees and Sequences, 1.3), which
    is 0 wherever the last token does not stand: only the other places are visited. Linear time.
    """
    reverse = tokens[::-1].tolist()
    n = len(reverse)
    lengths = [0] * n
    left = right = 0
    # reverse[left:right] is the rightmost part found so far that equals a beginning of the whole
    for i in (np.flatnonzero(tokens[-2::-1] == tokens[-1]) + 1).tolist() if n > 1 else ():
        length = min(right - i, lengths[i - left]) if i < right else 0
        while i + length < n and reverse[length] == reverse[i + length]:
            length += 1
        lengths[i] = length
        if i + length > right:
            left, right = i, i + length
    if n:
        lengths[0] = n
    return np.array(lengths[::-1], dtype=np.int32)
