"""Strings that stand end to end, each behind its length, taken apart by the compiled library."""

from mmap import mmap

import numpy as np
import numpy.typing as npt

from engine.native.library import open_library

Places = npt.NDArray[np.int64]


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


def join_strings(data: bytes, starts: Places, ends: Places, *, halved: bool = False) -> list[str] | None:
    """The strings that lie at these places of the data, as `find_strings` gives them; halved: two of each.

    They are then cut at the only space that each must have, with something before and behind it. None if one
    cannot be, has a NUL or is no UTF-8, and without the library.
    """
    library = open_library()
    if library is None:
        return None
    text, out = np.frombuffer(data, np.uint8), np.empty(len(data), np.uint8)
    size = library.nkat_join_strings(
        text.ctypes.data, starts.ctypes.data, ends.ctypes.data, len(starts), halved, out.ctypes.data
    )
    if size < 0:
        return None
    try:
        return str(out[:size].data, "utf-8").split("\0")[1:]
    except UnicodeDecodeError:
        return None
