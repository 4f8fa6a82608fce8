"""Weights of -1, 0 and 1 under one float16 scale: TQ1_0, TQ2_0.

Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp (MIT).
"""

import numpy as np

from engine.gguf.quants.blocks import F32, PAIRS, U8, half, planes


def tq1_0(blocks: U8, out: F32) -> None:
    """48 bytes of 5 base-3 digits each, 4 bytes of 4 digits each, float16 d: d * (digit - 1).

    A byte is a fraction of 256: multiplied by 3^k (modulo 256), it shows its digit k as the whole
    part of three times it.
    """
    digits = np.concatenate(
        [_digits(blocks[:, :32], 5), _digits(blocks[:, 32:48], 5), _digits(blocks[:, 48:52], 4)], axis=1
    )
    out[...] = digits
    out -= 1
    out *= half(blocks, 52)


def tq2_0(blocks: U8, out: F32) -> None:
    """64 bytes of pairs q, float16 d: d * (q - 1)."""
    out[...] = planes(blocks[:, :64], PAIRS, 3, 32).reshape(out.shape)
    out -= 1
    out *= half(blocks, 64)


def _digits(field: U8, count: int) -> U8:
    """(n, width) bytes -> (n, count * width) digits, all first digits first."""
    powers = np.array([1, 3, 9, 27, 81][:count], np.uint8).reshape(-1, 1)
    fractions = (field[:, None, :] * powers).astype(np.uint16)
    return (fractions * 3 >> 8).astype(np.uint8).reshape(len(field), -1)
