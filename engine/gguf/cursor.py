"""Walks the header of a GGUF file, and believes no number before it has compared it with the file's size.

Source of the layout: the GGUF specification (ggml, MIT), versions 2 and 3, little-endian.
"""

from collections.abc import Sequence
from mmap import mmap
from struct import Struct
from typing import Any

import numpy as np

from engine.errors import ModelFileError
from engine.gguf.string_array import StringArray
from engine.native.strings import Places, find_strings
from engine.printable import quoted

MAX_ELEMENTS = 1 << 22
"""Elements in all metadata arrays of a file together. The largest vocabularies need about a million."""

MAX_DEPTH = 4
"""How deep arrays may hold arrays. No known key nests at all."""

_NESTED_COST = 64
"""An array inside another takes as long to read as about this many plain elements, and counts as such."""

MAX_NAME = 1024
"""Bytes in a metadata key or tensor name."""

_U32 = Struct("<I")
_U64 = Struct("<Q")

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    _BOOL: np.dtype("<u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_MIN_SIZES = {number: dtype.itemsize for number, dtype in _NUMBERS.items()} | {_STRING: 8, _ARRAY: 12}


class Cursor:
    """A position in the header. Every read checks its bounds first and raises ModelFileError.

    The messages lack the file's name, which the caller puts in front.
    """

    def __init__(self, data: mmap, position: int) -> None:
        self.position = position
        self.end = len(data)
        self._data = data
        self._elements = 0

    def u32(self, what: str) -> int:
        """The unsigned 32-bit integer here."""
        at = self._advance(4, what)
        return int(_U32.unpack_from(self._data, at)[0])

    def u64(self, what: str) -> int:
        """The unsigned 64-bit integer here."""
        at = self._advance(8, what)
        return int(_U64.unpack_from(self._data, at)[0])

    def count(self, what: str, least_size: int) -> int:
        """A count of things that take `least_size` bytes or more each, and so cannot exceed the file."""
        count = self.u64(what)
        if count * least_size > self.end - self.position:
            raise ModelFileError(f"{what} is {count}, more than the rest of the file can hold")
        return count

    def name(self, what: str) -> str:
        """The string here, which must be UTF-8 of a sensible length."""
        raw = self._bytes(what)
        if len(raw) > MAX_NAME:
            raise ModelFileError(f"{what} has {len(raw)} bytes, more than the {MAX_NAME} allowed")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ModelFileError(f"{what} is not UTF-8: {raw[:40]!r}") from None

    def value(self, key: str) -> Any:
        """The type number here and the value of that type after it, as plain Python objects.

        Arrays of strings are a `StringArray`. A string that is not UTF-8 gets U+FFFD for each bad byte.
        """
        return self._value(self.u32(f"the type of {quoted(key)}"), key, depth=0)

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind == _STRING:
            return self._bytes(f"the value of {quoted(key)}").decode(errors="replace")
        if kind == _ARRAY:
            return self._array(key, depth)
        return self._numbers(kind, 1, key)[0]

    def _array(self, key: str, depth: int) -> Sequence[Any]:
        if depth == MAX_DEPTH:
            raise ModelFileError(f"metadata {quoted(key)} nests arrays deeper than {MAX_DEPTH}")
        kind = self.u32(f"the element type of {quoted(key)}")
        count = self.count(f"the length of array {quoted(key)}", _MIN_SIZES.get(kind, 1))
        self._elements += count * (_NESTED_COST if kind == _ARRAY else 1)
        if self._elements > MAX_ELEMENTS:
            raise ModelFileError(
                f"the metadata arrays up to {quoted(key)} have more than {MAX_ELEMENTS} elements"
            )
        if kind == _STRING:
            return self._strings(count, key)
        if kind == _ARRAY:
            return [self._array(key, depth + 1) for _ in range(count)]
        return self._numbers(kind, count, key)

    def _numbers(self, kind: int, count: int, key: str) -> list[Any]:
        dtype = _NUMBERS.get(kind)
        if dtype is None:
            raise ModelFileError(f"metadata {quoted(key)} has the unknown value type {kind}")
        at = self._advance(count * dtype.itemsize, f"the value of {quoted(key)}")
        numbers = np.frombuffer(self._data, dtype, count, at)
        if kind != _BOOL:
            return list(numbers.tolist())
        if numbers.max(initial=0) > 1:
            raise ModelFileError(f"metadata {quoted(key)} is a bool but neither 0 nor 1")
        return list(numbers.astype(bool).tolist())

    def _strings(self, count: int, key: str) -> StringArray:
        start = self.position
        starts, ends = find_strings(self._data, start, count) or self._find_strings(count, key)
        if count:
            self.position = start + int(ends[-1])
        return StringArray(self._data[start : self.position], starts, ends)

    def _find_strings(self, count: int, key: str) -> tuple[Places, Places]:
        """Where so many strings here begin and end, counted from here, int64 [count] each."""
        data, unpack, position, end = self._data, _U64.unpack_from, self.position, self.end
        places: list[tuple[int, int]] = []
        for _ in range(count):
            start = position + 8
            if start > end:
                raise ModelFileError(f"the file ends inside the strings of {quoted(key)}")
            position = start + unpack(data, position)[0]
            if position > end:
                raise ModelFileError(f"a string of {quoted(key)} is longer than the rest of the file")
            places.append((start, position))
        starts, ends = (np.array(places, np.int64).reshape(-1, 2) - self.position).T
        return np.ascontiguousarray(starts), np.ascontiguousarray(ends)

    def _bytes(self, what: str) -> bytes:
        size = self.count(f"the length of {what}", 1)
        at = self._advance(size, what)
        return self._data[at : at + size]

    def _advance(self, size: int, what: str) -> int:
        """Step over `size` bytes and return where they begin."""
        at = self.position
        if size > self.end - at:
            raise ModelFileError(f"the file ends inside {what}: it is truncated; download or copy it again")
        self.position = at + size
        return at
