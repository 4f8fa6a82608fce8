"""How kernels read and write heads of the KV cache; `engine.kv_cache.CacheFormat` defines the formats.

A head of `dim` elements is read as two parts, each a tile [tokens, half] for one product of matrices. Which
elements a part holds, `part_elements` says: parts of nibbles are the low and the high ones of the same bytes,
those of other formats lie behind each other. Elements beyond `dim` are 0.
"""

import triton
import triton.language as tl

from engine.kernels.cuda.hadamard import hadamard
from engine.kv_cache import SCALE_GROUP, CacheFormat, scale_groups

Q8 = tl.constexpr(CacheFormat.Q8.value)
Q4 = tl.constexpr(CacheFormat.Q4.value)
F16 = tl.constexpr(CacheFormat.F16.value)
_GROUP = tl.constexpr(SCALE_GROUP)


def half_block(dim: int) -> int:
    """Elements of a part: whole groups, and a power of two, as tiles are."""
    return int(triton.next_power_of_2(SCALE_GROUP * -(-scale_groups(dim) // 2)))


def head_block(dim: int) -> int:
    """Elements of a tile that holds a head in whole groups."""
    return max(SCALE_GROUP, int(triton.next_power_of_2(dim)))


@triton.jit
def part_elements(part: tl.constexpr, half: tl.constexpr, format: tl.constexpr) -> tl.tensor:
    """Which elements of a head the part holds: int32 [half]."""
    i = tl.arange(0, half)
    return 2 * i + part if format == Q4 else part * half + i


@triton.jit
def _load_scales(
    scales: tl.tensor, heads: tl.tensor, groups: tl.tensor, valid: tl.tensor, count: tl.constexpr
) -> tl.tensor:
    """Scales of these groups, `count` in a head: float16 [tokens, groups, 1], 0 for what there is not."""
    mask = valid[:, None] & (groups < count)[None, :]
    return tl.load(scales + heads[:, None] * count + groups[None, :], mask=mask, other=0.0)[:, :, None]


@triton.jit
def _as_float16(bits: tl.tensor, bias: tl.constexpr) -> tl.tensor:
    """Integers of 0 to 255 in int16, less a bias, as float16.

    1024 + n has the bits 0x6400 + n in half precision: an OR and a subtraction in place of a conversion,
    which GPUs do at a quarter of the rate or less.
    """
    return (bits | 0x6400).to(tl.float16, bitcast=True) - (1024.0 + bias)


@triton.jit
def load_heads(
    rows: tl.tensor,
    scales: tl.tensor,
    heads: tl.tensor,
    valid: tl.tensor,
    tokens: tl.constexpr,
    dim: tl.constexpr,
    half: tl.constexpr,
    format: tl.constexpr,
) -> tl.tensor:
    """Both parts of some heads: float16 [tokens, half] each, 0 where `valid` [tokens] says no.

    `rows`, `scales`: one layer's, [slots, kv_heads, ...]. `heads`: int64 [tokens], slot * kv_heads + head.
    """
    if format == F16:
        i = tl.arange(0, half)
        places = heads[:, None] * dim + i[None, :]
        low = tl.load(rows + places, mask=valid[:, None] & (i < dim)[None, :], other=0.0)
        high = tl.load(rows + places + half, mask=valid[:, None] & (half + i < dim)[None, :], other=0.0)
    else:
        count: tl.constexpr = (dim + _GROUP - 1) // _GROUP
        # Bytes of a group lie along an axis of their own, so that a scale meets its integers in registers.
        octets: tl.constexpr = _GROUP // 2 if format == Q4 else _GROUP
        row_octets: tl.constexpr = dim // 2 if format == Q4 else dim
        group = tl.arange(0, half // octets)
        within = group[:, None] * octets + tl.arange(0, octets)[None, :]
        places = heads[:, None, None] * row_octets + within[None, :, :]
        inside = valid[:, None, None] & (within < row_octets)[None, :, :]
        bits = tl.load(rows + places, mask=inside, other=0).to(tl.int16)
        scale = _load_scales(scales, heads, group, valid, count)
        if format == Q4:
            low, high = _as_float16(bits & 15, 8) * scale, _as_float16(bits >> 4, 8) * scale
        else:
            # The sign bit turned round makes 0 to 255 of -128 to 127.
            low = _as_float16((bits & 255) ^ 128, 128) * scale
            inside = valid[:, None, None] & (half + within < row_octets)[None, :, :]
            bits = tl.load(rows + places + half, mask=inside, other=0).to(tl.int16)
            scale = _load_scales(scales, heads, group + half // octets, valid, count)
            high = _as_float16((bits & 255) ^ 128, 128) * scale
        low, high = tl.reshape(low, (tokens, half)), tl.reshape(high, (tokens, half))
    return low, high


@triton.jit
def store_head(
    x: tl.tensor,
    rows: tl.tensor,
    scales: tl.tensor,
    head: tl.tensor,
    dim: tl.constexpr,
    block: tl.constexpr,
    stages: tl.constexpr,
    format: tl.constexpr,
) -> None:
    """Write a head, float32 [block] with zeros behind its `dim` elements: rotated and rounded by its format.

    `head`: slot * kv_heads + head, int64. `stages`: of the rotation.
    """
    i = tl.arange(0, block)
    if format == F16:
        tl.store(rows + head * dim + i, x.to(rows.dtype.element_ty), mask=i < dim)
    else:
        count: tl.constexpr = (dim + _GROUP - 1) // _GROUP
        groups: tl.constexpr = block // _GROUP
        values = tl.reshape(hadamard(x, block, stages), (groups, _GROUP))
        if format == Q8:
            scale = tl.div_rn(tl.max(tl.abs(values), 1), 127.0)
        else:
            highest, lowest = tl.max(values, 1), tl.min(values, 1)
            scale = tl.div_rn(tl.where(highest > -lowest, highest, lowest), -8.0)
        scale = scale.to(tl.float16)
        group = tl.arange(0, groups)
        tl.store(scales + head * count + group, scale, mask=group < count)
        known = scale.to(tl.float32)
        inverse = tl.where(known == 0.0, 0.0, tl.div_rn(1.0, tl.where(known == 0.0, 1.0, known)))
        rounded = tl.floor(values * inverse[:, None] + 0.5)
        if format == Q8:
            integers = tl.clamp(rounded, -127.0, 127.0).to(tl.int8)
            tl.store(rows + head * dim + i, tl.reshape(integers, (block,)), mask=i < dim)
        else:
            nibbles = (tl.clamp(rounded, -8.0, 7.0) + 8.0).to(tl.int32)
            low, high = tl.split(tl.reshape(nibbles, (block // 2, 2)))
            octet = tl.arange(0, block // 2)
            tl.store(rows + head * (dim // 2) + octet, (low | high << 4).to(tl.uint8), mask=octet < dim // 2)
