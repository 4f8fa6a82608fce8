"""Finds the tokens whose bytes hold a given fragment, or end with a beginning of it.

Knows the pieces of a vocabulary and nothing of samplers or phrases.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.tokenizer.tokenizer import Tokenizer

Ids = npt.NDArray[np.int64]


def lowered(text: str) -> str:
    """Lower case, character by character, so that places in the text stay what they are.

    As `str.lower`, except that a character whose lower case is longer (only U+0130 is) stays, and that a
    sigma looks the same at the end of a word as within it.
    """
    return text.lower() if text.isascii() else "".join(map(_lowered_character, text))


class PieceIndex:
    """The bytes of all tokens of a vocabulary, joined, to be searched at once. Thread-safe.

    Special tokens stand in it with their names. The bytes are joined at the first search (a tenth
    of a second for 50,000 tokens, five bytes of memory for each byte of text); with and without regard
    to case are two indexes. A search costs a few passes over the joined bytes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._exact: _Joined | None = None
        self._lowered: _Joined | None = None

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.vocab_size

    def containing(self, fragment: bytes, *, ignore_case: bool = False) -> Ids:
        """Ids, rising, of the tokens whose bytes contain the fragment; int64 [n].

        An empty fragment is in no token. Without regard to case both sides are `lowered`, bytes that are
        no UTF-8 left as they are.
        """
        joined = self._joined(ignore_case)
        return joined.containing(_lowered_bytes(fragment) if ignore_case else fragment)

    def overlapping(self, string: bytes) -> Iterator[tuple[int, Ids]]:
        """Tokens whose bytes end with a true beginning of the string: its length, and their ids, rising.

        Lengths rise; those that no token ends with are left out. A token may be there for several.
        """
        return self._joined(ignore_case=False).overlapping(string)

    def _joined(self, ignore_case: bool) -> "_Joined":
        with self._lock:
            if self._exact is None:
                piece = self._tokenizer.piece
                self._exact = _Joined.of(piece(i, render_special=True) for i in range(self.vocab_size))
            if not ignore_case:
                return self._exact
            if self._lowered is None:
                self._lowered = _Joined.of(map(_lowered_bytes, self._exact.pieces()))
            return self._lowered


@dataclass(frozen=True, slots=True)
class _Joined:
    """Pieces end to end. `text`: uint8 [m]; `owners`: int32 [m], the token of each byte.

    `ends`: int64 [tokens], where each piece ends. `frequencies`: int64 [256], how often each byte occurs.
    """

    text: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    frequencies: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> "_Joined":
        listed = list(pieces)
        lengths = np.fromiter(map(len, listed), np.int64, len(listed))
        text = np.frombuffer(b"".join(listed), np.uint8)
        owners = np.repeat(np.arange(len(listed), dtype=np.int32), lengths)
        return cls(text, owners, lengths.cumsum(), np.bincount(text, minlength=256))

    def pieces(self) -> Iterable[bytes]:
        text, start = self.text.tobytes(), 0
        for end in self.ends.tolist():
            yield text[start:end]
            start = end

    def containing(self, fragment: bytes) -> Ids:
        owners = self.owners[self._places(fragment)].astype(np.int64)
        first: Ids = owners[np.diff(owners, prepend=-1) > 0]
        return first

    def overlapping(self, string: bytes) -> Iterator[tuple[int, Ids]]:
        places = np.flatnonzero(self.text == string[0]) if string else np.empty(0, np.int64)
        for length in range(1, len(string)):
            if not len(places):
                return
            owners = self.owners[places].astype(np.int64)
            ended = places + length == self.ends[owners]
            if ended.any():
                yield length, owners[ended]
            places = places[~ended]
            places = places[self.text[places + length] == string[length]]

    def _places(self, fragment: bytes) -> Ids:
        """Where the fragment begins within one piece; int64 [n], rising."""
        length = len(fragment)
        if not 0 < length <= len(self.text):
            return np.empty(0, np.int64)
        # The rarest byte leaves the fewest places to look at.
        rarest = min(range(length), key=lambda offset: self.frequencies[fragment[offset]])
        last = len(self.text) - length
        places = np.flatnonzero(self.text[rarest : last + rarest + 1] == fragment[rarest])
        for offset, byte in enumerate(fragment):
            if offset != rarest:
                places = places[self.text[places + offset] == byte]
        whole: Ids = places[self.owners[places] == self.owners[places + length - 1]]
        return whole


def _lowered_character(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _lowered_bytes(piece: bytes) -> bytes:
    # A piece may be a part of a character: what is no UTF-8 passes through unchanged.
    return lowered(piece.decode(errors="surrogateescape")).encode(errors="surrogateescape")
