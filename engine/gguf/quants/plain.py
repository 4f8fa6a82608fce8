"""Numbers that are stored as such."""

import numpy as np

from engine.gguf.quants.blocks import F32, U8, Codec


def numbers(dtype: str) -> Codec:
    """A codec for one number of `dtype` a block, rounded to float32."""

    def decode(blocks: U8, out: F32) -> None:
        out[...] = blocks.view(dtype)

    return decode


def bf16(blocks: U8, out: F32) -> None:
    """The upper half of a float32."""
    np.left_shift(blocks.view("<u2"), np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
