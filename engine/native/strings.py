"""Where strings lie that stand end to end, each behind its length, by the compiled library."""

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
