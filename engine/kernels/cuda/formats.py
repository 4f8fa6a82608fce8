"""The integer formats of ggml as the kernels see them: what a group of 32 weights is made of.

A kernel gets a format as the number of its `GGMLType` in a constexpr and asks the functions here, while it is
compiled, what that means.
"""

from dataclasses import dataclass

import triton

from engine.gguf import GGMLType

GROUP = 32
"""Weights of a group: what one 16-byte load of 4-bit integers holds."""
GROUPS_PER_SUPER = 8
"""Groups of a super-block of the K types."""
CODEBOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The values of the IQ4 types' integers (ggml's kvalues_iq4nl)."""


@dataclass(frozen=True)
class Format:
    """How the weights of an integer type come about: scale * (q - offset) - or + a minimum.

    `low_bits` + `high_bits`: of q, in two planes. `is_signed`: bytes for a signed product, after the look-up
    in the codebook if `looked_up`. `halves`: each 16 weights have a scale of their own, else all 32.
    `minimum`: there is one beside each scale. `two_level`: scales are small integers, times a float16 for 256
    weights.
    """

    low_bits: int
    high_bits: int = 0
    offset: int = 0
    minimum: bool = False
    halves: bool = False
    two_level: bool = False
    is_signed: bool = False
    looked_up: bool = False


FORMATS = {
    GGMLType.Q4_0: Format(4, offset=8),
    GGMLType.Q4_1: Format(4, minimum=True),
    GGMLType.Q5_0: Format(4, 1, offset=16),
    GGMLType.Q5_1: Format(4, 1, minimum=True),
    GGMLType.Q8_0: Format(8, is_signed=True),
    GGMLType.Q2_K: Format(2, minimum=True, halves=True, two_level=True),
    GGMLType.Q3_K: Format(2, 1, offset=4, halves=True, two_level=True),
    GGMLType.Q4_K: Format(4, minimum=True, two_level=True),
    GGMLType.Q5_K: Format(4, 1, minimum=True, two_level=True),
    GGMLType.Q6_K: Format(4, 2, offset=32, halves=True, two_level=True),
    GGMLType.IQ4_NL: Format(4, is_signed=True, looked_up=True),
    GGMLType.IQ4_XS: Format(4, two_level=True, is_signed=True, looked_up=True),
}
FLOATS = frozenset({GGMLType.F32, GGMLType.F16, GGMLType.BF16})


@triton.constexpr_function
def is_float(format: int) -> bool:
    """Whether weights are floats, one by one."""
    return format in FLOATS


@triton.constexpr_function
def low_bits(format: int) -> int:
    """Bits of an integer in the first plane: 2, 4 or 8."""
    return FORMATS[GGMLType(format)].low_bits


@triton.constexpr_function
def high_bits(format: int) -> int:
    """Bits of an integer in the second plane: 0, 1 or 2."""
    return FORMATS[GGMLType(format)].high_bits


@triton.constexpr_function
def offset(format: int) -> int:
    """What is taken from every integer."""
    return FORMATS[GGMLType(format)].offset


@triton.constexpr_function
def has_minimum(format: int) -> bool:
    """Whether a minimum stands beside each scale."""
    return FORMATS[GGMLType(format)].minimum


@triton.constexpr_function
def has_halves(format: int) -> bool:
    """Whether the first and the last 16 weights of a group have scales of their own."""
    return FORMATS[GGMLType(format)].halves


@triton.constexpr_function
def is_two_level(format: int) -> bool:
    """Whether scales are small integers under the float16 of a super-block."""
    return FORMATS[GGMLType(format)].two_level


@triton.constexpr_function
def is_signed(format: int) -> bool:
    """Whether the bytes of unpacked integers are signed."""
    return FORMATS[GGMLType(format)].is_signed


@triton.constexpr_function
def is_looked_up(format: int) -> bool:
    """Whether integers are places in the codebook."""
    return FORMATS[GGMLType(format)].looked_up


@triton.constexpr_function
def is_raised(format: int) -> bool:
    """Whether the last 16 integers can be multiplied where they lie, in the upper nibbles: 16 times as large.

    It saves four shifts for 32 weights. A fifth bit would not fit.
    """
    own = FORMATS[GGMLType(format)]
    return own.low_bits == 4 and not own.high_bits and not own.looked_up
