"""From packed blocks to float32, bit for bit what ggml's reference decoders give."""

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from engine.gguf.quants.codecs import CODECS
from engine.gguf.types import GGMLType

_SLAB = 1 << 17
"""Weights decoded at a time: temporaries stay around a megabyte, in the processor's cache."""


def dequantize(data: npt.NDArray[np.uint8], type: GGMLType, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Decode the packed bytes of a tensor.

    `data` is uint8 of any C-contiguous shape, `shape` the tensor's, last dimension innermost. Returns a new
    float32 array of `shape`. Wider numbers (F64, I32, I64) are rounded. Raises ValueError when `data` is
    not as many bytes as `type` and `shape` make.
    """
    n_blocks, rest = divmod(prod(shape), type.block_size)
    if data.dtype != np.uint8 or rest or data.size != n_blocks * type.type_size:
        raise ValueError(f"{data.size} {data.dtype} are no {type.name} data of shape {tuple(shape)}")
    decode = CODECS[type]
    blocks = data.reshape(n_blocks, type.type_size)
    out = np.empty((n_blocks, type.block_size), np.float32)
    step = _SLAB // type.block_size
    # infinite and NaN scales of a damaged file pass through as they do in ggml
    with np.errstate(all="ignore"):
        for at in range(0, n_blocks, step):
            decode(blocks[at : at + step], out[at : at + step])
    return out.reshape(shape)
