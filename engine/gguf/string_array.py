"""The strings of a metadata array, which stay bytes until they are asked for."""

from collections.abc import Iterator, Sequence
from typing import overload

from engine.native.strings import Numbers, Places, find_merges, join_strings


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
        strings = join_strings(*self._strings)
        return iter(self._one_by_one() if strings is None else strings)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, StringArray | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a list has none

    @property
    def sizes(self) -> Places:
        """Bytes of each string, int64 [count]."""
        return self._ends - self._starts

    def merged_from(self, tokens: "StringArray") -> tuple[Numbers, Numbers] | None:
        """Which tokens each string joins, left and right, int32 [n] each; of equal strings the first counts.

        A string is cut at the first space behind its first character. None if one has no such tokens, and
        without the compiled library.
        """
        return find_merges(tokens._strings, self._strings)

    @property
    def _strings(self) -> tuple[bytes, Places, Places]:
        return self._data, self._starts, self._ends

    def _one_by_one(self) -> Iterator[str]:
        for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True):
            yield self._data[start:end].decode(errors="replace")
