"""Tokens that hold a banned phrase all by themselves, and therefore never need to be drawn and taken back."""

from collections.abc import Iterable
from functools import lru_cache

from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex

_REMEMBERED = 4096
"""Phrases whose tokens are kept."""


class PhraseBans:
    """Looks phrases up in the vocabulary, whatever their case. Thread-safe.

    Control tokens are left out: their names are not text. A phrase over several tokens is found in the text,
    by `engine.output`.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: PieceIndex) -> None:
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._holding = lru_cache(_REMEMBERED)(self._find)

    def tokens(self, phrases: Iterable[str]) -> frozenset[int]:
        """The tokens that hold one of the phrases."""
        return frozenset().union(*(self._holding(phrase) for phrase in phrases if phrase))

    def _find(self, phrase: str) -> frozenset[int]:
        found = self._pieces.containing(phrase.encode("utf-8", "replace"), ignore_case=True)
        return frozenset(token for token in found.tolist() if not self._tokenizer.is_control(token))
