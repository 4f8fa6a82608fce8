"""Shared reading of block fields.

`U8` blocks are (n, type_size) uint8, `F32` outputs (n, block_size) float32.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

U8: TypeAlias = npt.NDArray[np.uint8]
F32: TypeAlias = npt.NDArray[np.float32]
Codec: TypeAlias = Callable[[U8, F32], None]
"""Decodes blocks into an output of the same number of rows. The order of its float operations is
ggml's, so that results are the same to the last bit."""

NIBBLES = (0, 4)
PAIRS = (0, 2, 4, 6)


def half(blocks: U8, at: int) -> F32:
    """The float16 at byte `at` of each block, (n, 1)."""
    return blocks[:, at : at + 2].view("<f2").astype(np.float32)


def planes(field: U8, shifts: Sequence[int], mask: int, width: int) -> U8:
    """Split bytes into bit fields, plane by plane.

    `field` is (n, k * width). Of each run of `width` bytes come first the fields at `shifts[0]`, then
    those at `shifts[1]`, ...: (n, k, len(shifts), width).
    """
    steps = np.array(shifts, np.uint8).reshape(-1, 1)
    fields: U8 = (field.reshape(len(field), -1, 1, width) >> steps) & np.uint8(mask)
    return fields


def bits(field: U8) -> U8:
    """The bits of each byte, lowest first: (n, k) -> (n, 8 * k)."""
    return np.unpackbits(field, axis=1, bitorder="little")
