"""Indices into grids of 4 or 8 neighbouring weights: the IQ1, IQ2 and IQ3 families, 256 weights a block.

Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp (MIT).
"""

import numpy as np
import numpy.typing as npt

from engine.gguf.quants import grids
from engine.gguf.quants.blocks import F32, NIBBLES, PAIRS, U8, bits, half, planes

_DELTA = np.float32(0.125)
_SEVENS = np.array([0, 7, 14, 21], np.uint32)
_THREES = np.array([0, 3, 6, 9], np.uint16)


def _parity_signs() -> U8:
    """7 stored sign bits -> 8: the last makes the number of minus signs even."""
    codes = np.arange(128, dtype=np.uint8)
    parity = bits(codes[:, None]).sum(axis=1, dtype=np.uint8) & 1
    signs: U8 = codes | parity << 7
    return signs


_SIGNS = _parity_signs()
_FACTORS = 1 - 2 * bits(np.arange(256, dtype=np.uint8)[:, None]).astype(np.float32)
"""A byte of sign bits -> 8 factors of 1 and -1."""


def iq2_xxs(blocks: U8, out: F32) -> None:
    """float16 d, 8 groups of (4 grid indices; 4 x 7 signs and a four-bit scale in 32 bits)."""
    words = blocks[:, 2:].view("<u4").reshape(-1, 8, 2)
    indices = np.ascontiguousarray(words[:, :, 0]).view(np.uint8)
    scales = half(blocks, 0) * _odd_eighths(words[:, :, 1] >> 28)
    _signed(out, grids.iq2_xxs()[indices], scales, _seven_bit_signs(words[:, :, 1]))


def iq2_xs(blocks: U8, out: F32) -> None:
    """float16 d, 32 words of a nine-bit index and 7 signs, 16 four-bit scales."""
    words = blocks[:, 2:66].view("<u2")
    scales = half(blocks, 0) * _odd_eighths(_nibbles(blocks[:, 66:]))
    _signed(out, grids.iq2_xs()[words & 511], scales, _SIGNS[words >> 9])


def iq2_s(blocks: U8, out: F32) -> None:
    """float16 d, 32 bytes of indices, 32 bytes of signs, 8 bytes of upper index bits, 16 four-bit scales."""
    high = planes(blocks[:, 66:74], PAIRS, 3, 1).reshape(-1, 32).astype(np.uint16)
    scales = half(blocks, 0) * _odd_eighths(_nibbles(blocks[:, 74:]))
    _signed(out, grids.iq2_s()[blocks[:, 2:34] | high << 8], scales, blocks[:, 34:66])


def iq3_xxs(blocks: U8, out: F32) -> None:
    """float16 d, 64 indices, 8 words of 4 x 7 signs and a four-bit scale."""
    words = blocks[:, 66:].view("<u4")
    scales = half(blocks, 0) * (_odd_eighths(words >> 28) * 2)
    _signed(out, grids.iq3_xxs()[blocks[:, 2:66]], scales, _seven_bit_signs(words))


def iq3_s(blocks: U8, out: F32) -> None:
    """float16 d, 64 bytes of indices, 64 ninth index bits, 32 bytes of signs, 8 four-bit scales."""
    high = bits(blocks[:, 66:74]).astype(np.uint16)
    scales = half(blocks, 0) * (1 + 2 * _nibbles(blocks[:, 106:]))
    _signed(out, grids.iq3_s()[blocks[:, 2:66] | high << 8], scales, blocks[:, 74:106])


def iq1_s(blocks: U8, out: F32) -> None:
    """float16 d, 32 bytes of indices, 8 words.

    A word has 4 x 3 upper index bits, a three-bit scale and the delta's sign.
    """
    words = blocks[:, 34:].view("<u2")
    high = (words[:, :, None] >> _THREES & 7).reshape(-1, 32)
    scales = half(blocks, 0) * (2 * (words >> 12 & 7) + 1)
    delta = np.where(words & 0x8000, -_DELTA, _DELTA)
    _shifted(out, grids.iq1()[blocks[:, 2:34] | high << 8], scales, delta)


def iq1_m(blocks: U8, out: F32) -> None:
    """32 bytes of indices, 16 bytes of (3 upper index bits, delta's sign) twice, 4 words of scales.

    Each word has 4 three-bit scales and, uppermost, a quarter of the float16 d.
    """
    words = blocks[:, 48:].view("<u2")
    quarters = words >> 12 << np.array([0, 4, 8, 12], np.uint16)
    d = np.bitwise_or.reduce(quarters, axis=1, keepdims=True).view(np.float16).astype(np.float32)
    scales = d * (2 * (words[:, :, None] >> _THREES & 7).reshape(-1, 16) + 1)
    high = planes(blocks[:, 32:48], NIBBLES, 15, 1).reshape(-1, 32).astype(np.uint16)
    delta = np.where(high & 8, -_DELTA, _DELTA)
    _shifted(out, grids.iq1()[blocks[:, :32] | (high & 7) << 8], scales, delta)


def _nibbles(field: U8) -> U8:
    """(n, k) bytes -> (n, 2 * k) nibbles, the lower one of a byte first."""
    return planes(field, NIBBLES, 15, 1).reshape(len(field), -1)


def _odd_eighths(scale: npt.NDArray[np.integer]) -> F32:
    """(1/2 + scale) / 4: exact, so that it may be multiplied in any order."""
    return (scale.astype(np.float32) + np.float32(0.5)) * np.float32(0.25)


def _seven_bit_signs(words: npt.NDArray[np.uint32]) -> U8:
    """(n, 8) words of 4 x 7 bits -> (n, 32) sign bytes of 8 weights each."""
    signs: U8 = _SIGNS[words[:, :, None] >> _SEVENS & 127].reshape(len(words), -1)
    return signs


def _signed(out: F32, grid: F32, scales: F32, signs: U8) -> None:
    """scale * grid * sign, one scale for each of `scales.shape[1]` equal groups, one sign bit a weight."""
    out[...] = grid.reshape(out.shape)
    groups = out.reshape(*scales.shape, -1)
    groups *= scales[:, :, None]
    out *= _FACTORS[signs].reshape(out.shape)


def _shifted(out: F32, grid: F32, scales: F32, delta: F32) -> None:
    """scale * (grid + delta), for equal groups each."""
    out[...] = grid.reshape(out.shape)
    steps = out.reshape(*delta.shape, -1)
    steps += delta[:, :, None]
    groups = out.reshape(*scales.shape, -1)
    groups *= scales[:, :, None]
