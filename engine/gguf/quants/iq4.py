"""Nibbles that index a table of 16 values: IQ4_NL, IQ4_XS, MXFP4, NVFP4.

Source of the layouts and tables: ggml-common.h and ggml-quants.c of llama.cpp (MIT); the e2m1, e8m0
and e4m3 numbers are those of the OCP microscaling formats. The e2m1 table is doubled and its scales
halved, as ggml does.
"""

import numpy as np

from engine.gguf.quants.blocks import F32, NIBBLES, PAIRS, U8, half, planes

_NONLINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def _half_e8m0() -> F32:
    """Half of 2^(x - 127) for each byte x, the first two being subnormal."""
    codes = np.arange(256, dtype=np.uint32)
    return np.where(codes < 2, 0x00200000 << codes, (codes - 1) << 23).astype(np.uint32).view(np.float32)


def _half_e4m3() -> F32:
    """Half of the unsigned e4m3 number of each byte; the top bit is ignored, the one NaN is 0."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, (codes & 7).astype(np.float32)
    normal = (1 + mantissa / 8) * np.exp2(exponent.astype(np.float32) - 7)
    values = np.where(exponent == 0, mantissa * 2**-9, normal) / 2
    values[127] = 0
    return values.astype(np.float32)


_E8M0 = _half_e8m0()
_E4M3 = _half_e4m3()


def iq4_nl(blocks: U8, out: F32) -> None:
    """float16 d, 16 bytes of nibbles: d * table[q]."""
    np.take(_NONLINEAR, planes(blocks[:, 2:], NIBBLES, 15, 16).reshape(out.shape), out=out, mode="clip")
    out *= half(blocks, 0)


def iq4_xs(blocks: U8, out: F32) -> None:
    """float16 d, 2 bytes of upper and 4 bytes of lower bits of 8 six-bit scales, 128 bytes of nibbles."""
    quants = planes(blocks[:, 8:], NIBBLES, 15, 16)
    np.take(_NONLINEAR, quants.reshape(out.shape), out=out, mode="clip")
    n = len(blocks)
    # one byte holds neighbours here: (bytes, shifts) in order
    low = planes(blocks[:, 4:8], NIBBLES, 15, 1).reshape(n, 8)
    high = planes(blocks[:, 2:4], PAIRS, 3, 1).reshape(n, 8)
    scales = (low | high << np.uint8(4)).astype(np.float32) - 32
    groups = out.reshape(n, 8, 32)
    groups *= (half(blocks, 0) * scales)[:, :, None]


def mxfp4(blocks: U8, out: F32) -> None:
    """One e8m0 scale, 16 bytes of e2m1 nibbles."""
    np.take(_E2M1, planes(blocks[:, 1:], NIBBLES, 15, 16).reshape(out.shape), out=out, mode="clip")
    out *= _E8M0[blocks[:, :1]]


def nvfp4(blocks: U8, out: F32) -> None:
    """4 e4m3 scales, each for 16 weights in 8 bytes of e2m1 nibbles."""
    groups = out.reshape(-1, 4, 16)
    np.take(_E2M1, planes(blocks[:, 4:], NIBBLES, 15, 8).reshape(groups.shape), out=groups, mode="clip")
    groups *= _E4M3[blocks[:, :4]][:, :, None]
