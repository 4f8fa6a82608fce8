"""Blocks of 32 weights under one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0; and Q1_0 with its 128.

The lower nibbles of the 16 quant bytes are the first half of a block, the upper ones the second.
Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp (MIT).
"""

import numpy as np

from engine.gguf.quants.blocks import F32, NIBBLES, U8, bits, half, planes


def q4_0(blocks: U8, out: F32) -> None:
    """float16 d, 16 bytes of nibbles q: d * (q - 8)."""
    out[...] = planes(blocks[:, 2:], NIBBLES, 15, 16).reshape(out.shape)
    out -= 8
    out *= half(blocks, 0)


def q4_1(blocks: U8, out: F32) -> None:
    """float16 d, float16 m, 16 bytes of nibbles q: d * q + m."""
    out[...] = planes(blocks[:, 4:], NIBBLES, 15, 16).reshape(out.shape)
    out *= half(blocks, 0)
    out += half(blocks, 2)


def q5_0(blocks: U8, out: F32) -> None:
    """float16 d, 32 fifth bits, 16 bytes of nibbles: d * (q - 16)."""
    out[...] = _five_bits(blocks[:, 2:6], blocks[:, 6:])
    out -= 16
    out *= half(blocks, 0)


def q5_1(blocks: U8, out: F32) -> None:
    """float16 d, float16 m, 32 fifth bits, 16 bytes of nibbles: d * q + m."""
    out[...] = _five_bits(blocks[:, 4:8], blocks[:, 8:])
    out *= half(blocks, 0)
    out += half(blocks, 2)


def q8_0(blocks: U8, out: F32) -> None:
    """float16 d, 32 signed bytes q: d * q."""
    out[...] = blocks[:, 2:].view(np.int8)
    out *= half(blocks, 0)


def q1_0(blocks: U8, out: F32) -> None:
    """float16 d, 128 bits: d where a bit is set, else -d."""
    out[...] = bits(blocks[:, 2:])
    out *= 2
    out -= 1
    out *= half(blocks, 0)


def _five_bits(high: U8, low: U8) -> U8:
    quants = planes(low, NIBBLES, 15, 16).reshape(len(low), 32)
    quants |= bits(high) << np.uint8(4)
    return quants
