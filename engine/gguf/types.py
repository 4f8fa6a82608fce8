"""The tensor types of ggml: number, name and block layout.

Source of the numbers and sizes: `enum ggml_type` and the block structs of ggml (llama.cpp, MIT).
"""

from enum import IntEnum
from typing import Self


class GGMLType(IntEnum):
    """A storage type, numbered as in the file. Every member can be dequantised.

    A row is a sequence of blocks: `block_size` weights in `type_size` bytes. `GGMLType(n)` raises
    ValueError for a number that is no readable type; `type_name` names what it can.
    """

    block_size: int
    type_size: int

    def __new__(cls, number: int, block_size: int = 1, type_size: int = 1) -> Self:
        """Make the member `number`, as the enumeration does for each line below."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.block_size = block_size
        member.type_size = type_size
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18

    @property
    def packed_natively(self) -> bool:
        """Whether the engine computes with the packed form; if not, it is dequantised at load."""
        return self in NATIVE_TYPES


NATIVE_TYPES = frozenset(
    {
        GGMLType.F32,
        GGMLType.F16,
        GGMLType.BF16,
        GGMLType.Q4_0,
        GGMLType.Q4_1,
        GGMLType.Q5_0,
        GGMLType.Q5_1,
        GGMLType.Q8_0,
        GGMLType.Q2_K,
        GGMLType.Q3_K,
        GGMLType.Q4_K,
        GGMLType.Q5_K,
        GGMLType.Q6_K,
        GGMLType.IQ4_NL,
        GGMLType.IQ4_XS,
    }
)
"""The types that stay packed in memory."""

_UNREADABLE = {
    4: "Q4_2",
    5: "Q4_3",
    9: "Q8_1",
    15: "Q8_K",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
    42: "Q2_0",
}
"""Numbers that ggml has withdrawn, uses for intermediate results alone, or has newly added."""


def type_name(number: int) -> str:
    """The name of ggml type `number`, also where it cannot be read; else `number N`."""
    try:
        return GGMLType(number).name
    except ValueError:
        return _UNREADABLE.get(number, f"number {number}")
