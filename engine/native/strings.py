"""Strings that stand end to end, each behind its length, taken apart by the compiled library."""

from mmap import mmap

import numpy as np
import numpy.typing as npt

from engine.native.library import CStrings, open_library

Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


def find_strings(data: mmap | bytes, position: int, count: int) -> tuple[Places, Places] | None:
    """Where `count` strings at a position begin and end, int64 [count] each, counted from `position`.

    None if they go beyond the end of the data, and without the library.
    """
    library = open_library()
    if library is None:
        return None
    text = np.frombuffer(data, np.uint8)[position:]
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    found = library.nkat_find_strings(
        text.ctypes.data, len(text), count, starts.ctypes.data, ends.ctypes.data
    )
    return (starts, ends) if found >= 0 else None


def join_strings(data: bytes, starts: Places, ends: Places) -> list[str] | None:
    """The strings that lie at these places of the data, as `find_strings` gives them.

    None if one has a NUL or is no UTF-8, if one lies outside the data, and without the library.
    """
    library = open_library()
    if library is None:
        return None
    out = np.empty(len(data), np.uint8)
    size = library.nkat_join_strings(_strings(data, starts, ends), out.ctypes.data, len(out))
    if size < 0:
        return None
    try:
        return str(out[:size].data, "utf-8").split("\0")[1:]
    except UnicodeDecodeError:
        return None


def find_merges(
    tokens: tuple[bytes, Places, Places], merges: tuple[bytes, Places, Places]
) -> tuple[Numbers, Numbers] | None:
    """The tokens left and right of each merge's first space behind its first character, int32 [n] each.

    Both are strings at places of their data. Of equal merges only the first is told of. None if one has no
    such tokens, and without the library.
    """
    library = open_library()
    if library is None:
        return None
    count = len(merges[1])
    left, right = np.empty(count, np.int32), np.empty(count, np.int32)
    found = library.nkat_find_merges(
        _strings(*tokens), _strings(*merges), left.ctypes.data, right.ctypes.data
    )
    return (left[:found], right[:found]) if found >= 0 else None


def _strings(data: bytes, starts: Places, ends: Places) -> CStrings:
    """The strings for the library, which must not outlive the arguments."""
    text = np.frombuffer(data, np.uint8)
    count = min(len(starts), len(ends))
    return CStrings(text.ctypes.data, len(text), starts.ctypes.data, ends.ctypes.data, count)
