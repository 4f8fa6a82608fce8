"""Blocks of 256 weights whose groups have small integer scales under one or two float16 scales.

Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp (MIT).
"""

import numpy as np

from engine.gguf.quants.blocks import F32, NIBBLES, PAIRS, U8, half, planes


def q2_k(blocks: U8, out: F32) -> None:
    """16 bytes of scale (low) and min (high nibble), 64 bytes of pairs, float16 d, float16 dmin."""
    scales = blocks[:, :16]
    groups = out.reshape(-1, 16, 16)
    groups[...] = planes(blocks[:, 16:80], PAIRS, 3, 32).reshape(groups.shape)
    groups *= (half(blocks, 80) * (scales & 15))[:, :, None]
    groups -= (half(blocks, 82) * (scales >> 4))[:, :, None]


def q3_k(blocks: U8, out: F32) -> None:
    """32 bytes of third bits, 64 bytes of pairs, 12 bytes of 16 six-bit scales, float16 d.

    A third bit that is *not* set takes 4 away.
    """
    low = planes(blocks[:, 32:96], PAIRS, 3, 32).reshape(-1, 256)
    low |= planes(blocks[:, :32], range(8), 1, 32).reshape(-1, 256) << np.uint8(2)
    groups = out.reshape(-1, 16, 16)
    groups[...] = low.reshape(groups.shape)
    groups -= 4
    scales = planes(blocks[:, 96:104], NIBBLES, 15, 8).reshape(-1, 16)
    scales |= planes(blocks[:, 104:108], PAIRS, 3, 4).reshape(-1, 16) << np.uint8(4)
    groups *= (half(blocks, 108) * (scales.astype(np.float32) - 32))[:, :, None]


def q4_k(blocks: U8, out: F32) -> None:
    """float16 d, float16 dmin, 12 bytes of 8 six-bit scales and mins, 128 bytes of nibbles."""
    groups = out.reshape(-1, 8, 32)
    groups[...] = planes(blocks[:, 16:], NIBBLES, 15, 32).reshape(groups.shape)
    _scale_and_shift(blocks, groups)


def q5_k(blocks: U8, out: F32) -> None:
    """As Q4_K, with 32 bytes of fifth bits before the nibbles."""
    quants = planes(blocks[:, 48:], NIBBLES, 15, 32).reshape(-1, 256)
    quants |= planes(blocks[:, 16:48], range(8), 1, 32).reshape(-1, 256) << np.uint8(4)
    groups = out.reshape(-1, 8, 32)
    groups[...] = quants.reshape(groups.shape)
    _scale_and_shift(blocks, groups)


def q6_k(blocks: U8, out: F32) -> None:
    """128 bytes of nibbles, 64 bytes of upper pairs, 16 signed bytes of scale, float16 d."""
    quants = planes(blocks[:, :128], NIBBLES, 15, 64).reshape(-1, 256)
    quants |= planes(blocks[:, 128:192], PAIRS, 3, 32).reshape(-1, 256) << np.uint8(4)
    groups = out.reshape(-1, 16, 16)
    groups[...] = quants.reshape(groups.shape)
    groups -= 32
    groups *= (half(blocks, 208) * blocks[:, 192:208].view(np.int8))[:, :, None]


def _scale_and_shift(blocks: U8, groups: F32) -> None:
    """quants -> d * scale * quant - dmin * min, with the 12 bytes of Q4_K and Q5_K.

    Bytes 0-3 hold scales 0-3 and the upper bits of scales 4-7, bytes 4-7 the same of the mins, bytes
    8-11 the lower nibbles of scales 4-7 and, in their upper nibbles, of mins 4-7.
    """
    scale, least, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([scale & 63, rest & 15 | (scale & 0xC0) >> 2], axis=1)
    mins = np.concatenate([least & 63, rest >> 4 | (least & 0xC0) >> 2], axis=1)
    groups *= (half(blocks, 0) * scales)[:, :, None]
    groups -= (half(blocks, 2) * mins)[:, :, None]
