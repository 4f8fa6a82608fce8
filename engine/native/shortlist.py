"""The largest of a row of logits, and the draw from them, by the compiled library."""

from ctypes import byref, c_int64
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.native.library import CTail, open_library

MOST_WANTED = 512
"""Of one shortlist: beyond that numpy's partition is as fast."""

Values = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tail:
    """The usual end of a chain of samplers: top-p, then min-p, then the temperature, then the draw.

    `top_p` >= 1 is off; `distance` is how far below the largest a logit may be, -ln of min-p, infinity is
    off, minus infinity keeps the first one alone; `temperature` is a normal float32 > 0.
    """

    top_p: float = 1.0
    distance: float = float("inf")
    temperature: float = 1.0


def shortlist(values: Values, limit: float, wanted: int) -> tuple[Places, Values] | None:
    """Places and values of the `wanted` <= `MOST_WANTED` largest of some values.

    Largest first, equal ones by rising place; minus infinity is none. None if a value is NaN or above
    `limit`, if the values are not contiguous, and without the library.
    """
    library = open_library()
    if library is None or not _readable(values):
        return None
    places, largest = np.empty(wanted, np.int64), np.empty(wanted, np.float32)
    found = library.nkat_shortlist(
        values.ctypes.data, len(values), limit, wanted, places.ctypes.data, largest.ctypes.data
    )
    return (places[:found], largest[:found]) if found >= 0 else None


def draw(
    values: Values, limit: float, wanted: int, tail: Tail, u: float
) -> tuple[Places, Values, int] | None:
    """A shortlist narrowed down by the tail: places, logits over the temperature, and which was drawn.

    `u`: the random number, in [0, 1). None as `shortlist` gives it, and where nothing is left to draw.
    """
    library = open_library()
    if library is None or not _readable(values):
        return None
    places, largest, drawn = np.empty(wanted, np.int64), np.empty(wanted, np.float32), c_int64()
    found = library.nkat_draw(
        values.ctypes.data,
        len(values),
        limit,
        wanted,
        byref(CTail(tail.top_p, tail.distance, tail.temperature, u)),
        places.ctypes.data,
        largest.ctypes.data,
        byref(drawn),
    )
    return (places[:found], largest[:found], drawn.value) if found > 0 else None


def _readable(values: Values) -> bool:
    return values.flags.c_contiguous and values.dtype == np.float32 and values.ndim == 1
