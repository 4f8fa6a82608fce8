"""The strings of a metadata array, which stay bytes until they are asked for."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

_PREFIX = 8
"""Bytes in front of each string, its length."""


class StringArray(Sequence[str]):
    """A list of strings that cannot be changed; it equals a list of the same strings.

    A vocabulary has hundreds of thousands of strings: one by one they take longer than all else that a
    model needs to be loaded. What is not UTF-8 shows U+FFFD for each bad byte: token texts reach JSON
    replies and tokenisers, which take no lone surrogates.
    """

    def __init__(self, data: bytes, starts: Places, ends: Places) -> None:
        """`data`: the strings as in the file; `starts`, `ends`, int64 [count]: where in it each lies."""
        self._data = data
        self._starts = starts
        self._ends = ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._data[self._starts[index] : self._ends[index]].decode(errors="replace")

    def __iter__(self) -> Iterator[str]:
        strings = self._at_once()
        return iter(self._one_by_one() if strings is None else strings)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, StringArray | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a list has none

    @property
    def sizes(self) -> Places:
        """Bytes of each string, int64 [count]."""
        return self._ends - self._starts

    def beginning(self, first: bytes) -> dict[str, int]:
        """The strings that begin with one of these bytes, and the index of each; of equal ones the last."""
        filled = np.flatnonzero(self.sizes)
        heads = np.frombuffer(self._data, np.uint8)[self._starts[filled]]
        found = filled[np.isin(heads, np.frombuffer(first, np.uint8))]
        return {self[i]: i for i in found.tolist()}

    def halves(self) -> list[tuple[str, str]] | None:
        """Each string cut in two at its space, quickly.

        None if a string does not have exactly one space, with something before and behind it, if one has a
        NUL, or if one is not UTF-8.
        """
        joined = self._joined()
        spaces, joints = np.flatnonzero(joined == ord(" ")), np.flatnonzero(joined == 0)
        if not len(spaces) == len(joints) == len(self) or not (joints + 1 < spaces).all():
            return None
        if not (spaces + 1 < np.append(joints[1:], len(joined))).all():
            return None
        joined[spaces] = 0
        strings = _split(joined)
        return None if strings is None else list(zip(strings[::2], strings[1::2], strict=True))

    def _at_once(self) -> list[str] | None:
        """All strings, ten times as fast as one by one; None if one has a NUL or is not UTF-8."""
        joined = self._joined()
        return _split(joined) if np.count_nonzero(joined == 0) == len(self) else None

    def _one_by_one(self) -> Iterator[str]:
        for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True):
            yield self._data[start:end].decode(errors="replace")

    def _joined(self) -> npt.NDArray[np.uint8]:
        """All strings end to end, a NUL in front of each."""
        data = np.frombuffer(self._data, np.uint8).copy()
        data[self._starts - 1] = 0
        kept = np.ones(len(data), np.bool_)
        kept[self._starts[:, None] - np.arange(2, _PREFIX + 1)] = False
        return data[kept]


def _split(joined: npt.NDArray[np.uint8]) -> list[str] | None:
    """The strings behind NULs; None if they are not UTF-8."""
    try:
        return joined.tobytes().decode().split("\0")[1:]
    except UnicodeDecodeError:
        return None
