"""The compiled library and its C interface, as `native/api.cpp` declares it. Knows no torch."""

import ctypes
import os
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int, c_int64, c_uint, c_void_p
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("libnkat_kernels.so")
_VERSION = 6

TEST_LIBRARY = "NKATTEST_LIBRARY"
"""An environment variable for tests alone: another build of the library, say one with sanitizers."""

REFUSED = -2
"""What a function returns for operands that do not fit each other."""

NATIVE_KERNELS = ("avx512", "avxvnni", "avx2", "portable")
"""The kernel sets that the library may have, the fastest first."""


class CSpan(Structure):
    """`Span`: rows of one sequence, and the slots of its context."""

    _fields_ = (("start", c_int64), ("stop", c_int64), ("context", c_int64), ("slots", c_void_p))


class CBatch(Structure):
    """`Batch`."""

    _fields_ = (
        ("rows", c_int64),
        ("position_count", c_int64),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("span_count", c_int64),
        ("spans", POINTER(CSpan)),
    )


class CCache(Structure):
    """`Cache`: strides count elements."""

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("key_stride", c_int64),
        ("value_stride", c_int64),
        ("layers", c_int64),
        ("slots", c_int64),
        ("key_width", c_int64),
        ("value_width", c_int64),
    )


class CSelfAttention(Structure):
    """`SelfAttention`."""

    _fields_ = (
        ("norm", c_void_p),
        ("norm_count", c_int64),
        ("epsilon", c_float),
        ("scale", c_float),
        ("q", c_void_p),
        ("k", c_void_p),
        ("v", c_void_p),
        ("out", c_void_p),
        ("cache", c_int64),
        ("key_dim", c_int64),
        ("value_dim", c_int64),
        ("rotated", c_int64),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("positions", c_int64),
    )


class CFeedForward(Structure):
    """`FeedForward`."""

    _fields_ = (
        ("norm", c_void_p),
        ("norm_count", c_int64),
        ("epsilon", c_float),
        ("gate", c_void_p),
        ("up", c_void_p),
        ("down", c_void_p),
    )


class CLayer(Structure):
    """`Layer`: one of the two."""

    _fields_ = (("attention", POINTER(CSelfAttention)), ("feed_forward", POINTER(CFeedForward)))


class CTail(Structure):
    """`Tail`."""

    _fields_ = (("top_p", c_double), ("distance", c_float), ("temperature", c_float), ("u", c_double))


class CStrings(Structure):
    """`Strings`."""

    _fields_ = (
        ("text", c_void_p),
        ("size", c_int64),
        ("starts", c_void_p),
        ("ends", c_void_p),
        ("count", c_int64),
    )


_FUNCTIONS = {
    "nkat_refusal": (c_char_p,),
    "nkat_features": (c_uint,),
    "nkat_can_run": (c_int, c_char_p, c_uint),
    "nkat_open": (c_void_p, c_char_p, c_int),
    "nkat_close": (None, c_void_p),
    "nkat_pack": (
        c_int,
        c_void_p,
        c_int,
        c_int64,
        c_int64,
        c_void_p,
        c_int64,
        c_void_p,
        c_int64,
        POINTER(c_void_p),
    ),
    "nkat_damaged": (c_int, c_void_p),
    "nkat_settle": (None, c_void_p),
    "nkat_settled": (c_int, c_void_p),
    "nkat_forget": (None, c_void_p, c_void_p),
    "nkat_set_theta": (c_int, c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_void_p),
    "nkat_use_theta": (None, c_void_p, c_void_p, c_int),
    "nkat_linear": (
        c_int,
        c_void_p,
        c_void_p,
        c_void_p,
        c_int64,
        c_float,
        c_void_p,
        c_int64,
        c_int64,
        c_void_p,
        c_int64,
    ),
    "nkat_embed": (c_int, c_void_p, c_void_p, c_void_p, c_int64, c_void_p, c_int64),
    "nkat_forward": (
        c_int,
        c_void_p,
        POINTER(CLayer),
        c_int64,
        c_void_p,
        c_int64,
        POINTER(CBatch),
        POINTER(CCache),
    ),
    "nkat_shortlist": (c_int64, c_void_p, c_int64, c_float, c_int64, c_void_p, c_void_p),
    "nkat_draw": (
        c_int64,
        c_void_p,
        c_int64,
        c_float,
        c_int64,
        POINTER(CTail),
        c_void_p,
        c_void_p,
        POINTER(c_int64),
    ),
    "nkat_find_strings": (c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p),
    "nkat_join_strings": (c_int64, POINTER(CStrings), c_void_p, c_int64),
    "nkat_find_merges": (c_int64, POINTER(CStrings), POINTER(CStrings), c_void_p, c_void_p),
    "nkat_guard": (c_int64, c_void_p, c_int64, c_int),
    "nkat_look_at_mappings": (None,),
    "nkat_guard_failed": (c_int, c_int64),
    "nkat_unguard": (None, c_int64),
}
"""Name: result, arguments."""


@cache
def open_library() -> ctypes.CDLL | None:
    """The library, once for the process; None if it was not built or is of another version."""
    try:
        library = ctypes.CDLL(os.environ.get(TEST_LIBRARY) or str(_FILE))
    except OSError:
        return None
    try:
        if library.nkat_version() != _VERSION:
            return None
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:  # a function is missing
        return None
    return library


def check(library: ctypes.CDLL, result: int, what: str) -> None:
    """Raise what a function's result stands for: `ValueError` for operands that do not fit each other,
    `MemoryError` where there is none left for `what`.
    """
    if result == REFUSED:
        raise ValueError(f"the kernels refuse {what}: {library.nkat_refusal().decode()}")
    if result < 0:
        raise MemoryError(f"no memory for {what}")


def native_kernels(features: int | None = None) -> tuple[str, ...]:
    """The kernel sets that this processor can run, the fastest first; none without the library.

    `features`: what a processor offers, as `native/cpu.h` numbers it; None: this one.
    """
    library = open_library()
    if library is None:
        return ()
    if features is None:
        features = library.nkat_features()
    return tuple(name for name in NATIVE_KERNELS if library.nkat_can_run(name.encode(), features))
