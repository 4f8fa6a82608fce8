"""The strings that DRY does not look across for repetitions, as tokens."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import Ids, PieceIndex

MAX_BREAKERS = 128
MAX_BYTES = 40
MAX_TAIL = 20
"""So many strings count, of each so many bytes, and behind its first token so many more."""

_CACHED = 16
_LOOKED_AT = 1024
"""Tokens that are searched at once, from the end: most texts have a breaker among their last."""
_END = -1

_Trie = dict[int, "_Trie"]
"""Token sequences by their next token; a key `_END` says that one ends here."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Breakers:
    """Breaker sequences: a head token, then the tokens of a tail.

    `alone`: bool [vocab], tokens that are a whole sequence. `heads`: bool [vocab], tokens with tails;
    `seconds`: bool [vocab], tokens that some tail begins with. `head_ids`, rising with repetitions, and
    `head_tails`, int [pairs], say which of `tails` a head has.
    """

    alone: Flags
    heads: Flags
    seconds: Flags
    head_ids: Ids
    head_tails: npt.NDArray[np.int64]
    tails: tuple[_Trie, ...]

    def limit(self, window: npt.NDArray[np.int32]) -> int:
        """How many tokens at the end of the window, int32 [n], follow its last breaker sequence.

        The last is the one with the rightmost head, and of those with the same head the longest. All n
        if there is none.
        """
        n = len(window)
        for end in range(n, 0, -_LOOKED_AT):
            start = max(0, end - _LOOKED_AT)
            second = window[start + 1 : end + 1]
            begins = self.alone[window[start:end]]
            begins[: len(second)] |= self.heads[window[start : start + len(second)]] & self.seconds[second]
            for place in (np.flatnonzero(begins)[::-1] + start).tolist():
                length = self._longest(window[place : place + 1 + MAX_TAIL].tolist())
                if length is not None:
                    return n - int(place) - 1 - length
        return n

    def _longest(self, sequence: list[int]) -> int | None:
        """How many of the tokens behind the first are its longest tail; None if it begins no sequence."""
        head, *following = sequence
        longest = 0 if self.alone[head] else None
        first, last = self.head_ids.searchsorted([head, head + 1])
        for tail in self.head_tails[first:last].tolist():
            node = self.tails[tail]
            for length, token in enumerate(following, 1):
                if token not in node:
                    break
                node = node[token]
                if _END in node and (longest is None or length > longest):
                    longest = length
        return longest


class BreakerCompiler:
    """Finds the breaker sequences of strings. Thread-safe; remembers the last few lists of strings.

    As KoboldCpp: a token that contains the string is a sequence of its own. A token whose end is a
    beginning of the string is a head, and the tokens of the string's rest are its tail; there are no heads
    for a string without an ASCII character.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: PieceIndex) -> None:
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._compiled = functools.lru_cache(_CACHED)(self._compile)

    def compile(self, strings: Iterable[str]) -> Breakers:
        """The sequences of the first `MAX_BREAKERS` strings. Empty strings say nothing."""
        first = tuple(strings)[:MAX_BREAKERS]
        return self._compiled(tuple(dict.fromkeys(filter(None, map(_shortened, first)))))

    def _compile(self, strings: tuple[str, ...]) -> Breakers:
        size = self._pieces.vocab_size
        alone, heads, seconds = (np.zeros(size, np.bool_) for _ in range(3))
        found: dict[bytes, Ids] = {}
        """Heads by the beginning of a string that they end with."""
        tries: dict[bytes, _Trie] = {}
        """Tails by the beginning that they follow, in the same order."""
        for string in strings:
            raw = string.encode()
            alone[self._pieces.containing(raw)] = True
            if not any(map(_is_ascii, raw)):
                continue
            for length, ids in self._pieces.overlapping(raw):
                if _inside_character(raw[length]):
                    continue
                tail = self._tokenizer.encode(raw[length:].decode(), add_bos=False)[:MAX_TAIL]
                if tail:
                    seconds[tail[0]] = True
                    found[raw[:length]] = ids
                    _insert(tries.setdefault(raw[:length], {}), tail)
        head_ids = np.concatenate([np.empty(0, np.int64), *found.values()])
        head_tails = np.repeat(np.arange(len(found)), [len(ids) for ids in found.values()])
        heads[head_ids] = True
        order = head_ids.argsort(kind="stable")
        return Breakers(alone, heads, seconds, head_ids[order], head_tails[order], tuple(tries.values()))


def _shortened(string: str) -> str:
    """As many whole characters as fit in `MAX_BYTES`, without halves of surrogate pairs."""
    return string.encode(errors="ignore")[:MAX_BYTES].decode(errors="ignore")


def _is_ascii(byte: int) -> bool:
    return byte < 0x80


def _inside_character(byte: int) -> bool:
    """Whether the byte of a UTF-8 text is not a character's first."""
    return byte & 0xC0 == 0x80


def _insert(trie: _Trie, sequence: list[int]) -> None:
    for token in sequence:
        trie = trie.setdefault(token, {})
    trie[_END] = {}
