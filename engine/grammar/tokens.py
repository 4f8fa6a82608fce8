"""A model's tokens as llguidance knows them, and masks over them."""

from collections.abc import Iterable
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
from llguidance import LLTokenizer, TokenizerWrapper

from engine.errors import RequestError
from engine.grammar.vocabulary import LibraryVocabulary
from engine.tokenizer import Tokenizer

Mask = npt.NDArray[np.uint32]
"""(ceil(vocabulary / 32)): bit `i % 32` of word `i // 32` stands for token `i`."""

MAX_BYTES = 4_000_000
"""llguidance's tree of tokens has at most 4,194,304 nodes, one a byte at worst."""


class GrammarTokens:
    """All tokens of a vocabulary, for all grammars. Immutable; building takes a part of a second."""

    library: LLTokenizer
    ends: Mask
    """The end tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises RequestError for a vocabulary that is too large for llguidance."""
        self._tokenizer = tokenizer
        self._size = tokenizer.vocab_size
        vocabulary = LibraryVocabulary(tokenizer)
        if sum(map(len, vocabulary.tokens)) > MAX_BYTES:
            raise RequestError("the model's vocabulary is too large for grammars")
        self._twins = vocabulary.twins
        self._special = frozenset(vocabulary.special_token_ids)
        ends = sorted(tokenizer.end_ids)
        # the library asks for the attributes, not for the class
        self.library = LLTokenizer(cast(TokenizerWrapper, vocabulary), eos_token=ends or None)
        self.ends = self._mask(ends)
        self._copies = np.array(list(self._twins), np.int64)
        self._originals = np.array(list(self._twins.values()), np.int64)

    @cached_property
    def all(self) -> Mask:
        """All tokens that have a text, and the end tokens."""
        tokens = range(self._size)
        return self._mask([i for i in tokens if self._tokenizer.piece(i, render_special=True)]) | self.ends

    def is_end(self, token_id: int) -> bool:
        """Whether the token ends a generation."""
        return token_id in self._tokenizer.end_ids

    def original(self, token_id: int) -> int:
        """The token with the same text that llguidance knows; mostly the token itself."""
        return self._twins.get(token_id, token_id)

    def spread(self, raw: bytes) -> Mask:
        """llguidance's mask with the tokens added that it does not know, and cut to the vocabulary."""
        mask = np.frombuffer(raw, np.uint32)[: len(self.ends)].copy()
        if self._size % 32:
            mask[-1] &= np.uint32((1 << self._size % 32) - 1)
        if len(self._copies):
            bits = mask[self._originals // 32] >> (self._originals % 32).astype(np.uint32) & np.uint32(1)
            np.bitwise_or.at(mask, self._copies // 32, bits << (self._copies % 32).astype(np.uint32))
        return mask

    def split(self, text: str) -> list[str | int]:
        """`text` as the tokenizer reads it: special tokens as their ids, and the plain text between them."""
        parts: list[str | int] = []
        at = 0
        for token_id in self._tokenizer.encode(text, parse_special=True, add_bos=False):
            if token_id in self._special:
                name = self._tokenizer.text(token_id)
                found = text.find(name, at)
                if found < 0:
                    continue
                if found > at:
                    parts.append(text[at:found])
                parts.append(token_id)
                at = found + len(name)
        return [*parts, text[at:]] if at < len(text) else parts

    def find(self, token: int | str) -> int | None:
        """The token of a number or a name, as llguidance knows it; None if the name is not one token."""
        if isinstance(token, str):
            found = self._tokenizer.encode(token, parse_special=True, add_bos=False)
            return self.original(found[0]) if len(found) == 1 else None
        return self.original(token) if token < self._size else None

    def others(self, token_id: int) -> list[tuple[int, int]]:
        """Ranges of all tokens but one that have a text and do not end a generation."""
        ranges = []
        for first, last in self._usual:
            if first <= token_id <= last:
                ranges += [(first, token_id - 1)] * (first < token_id) + [(token_id + 1, last)] * (
                    token_id < last
                )
            else:
                ranges.append((first, last))
        return ranges

    @cached_property
    def _usual(self) -> list[tuple[int, int]]:
        bits = np.unpackbits((self.all & ~self.ends).view(np.uint8), bitorder="little")
        return ranges_of(np.flatnonzero(bits).tolist())

    def special_ids(self) -> list[int]:
        """All special tokens that do not end a generation, ascending."""
        return sorted(self._special - self._tokenizer.end_ids)

    def _mask(self, ids: list[int]) -> Mask:
        mask = np.zeros(-(-self._size // 32), np.uint32)
        for token_id in ids:
            mask[token_id // 32] |= np.uint32(1 << token_id % 32)
        return mask


def ranges_of(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending ids as ranges, first and last both included."""
    ranges: list[tuple[int, int]] = []
    for token_id in ids:
        if ranges and token_id == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], token_id)
        else:
            ranges.append((token_id, token_id))
    return ranges
