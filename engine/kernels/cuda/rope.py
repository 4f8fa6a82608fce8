"""Rotary embedding of queries and keys, and the way of keys and values into the cache, in one launch."""

import torch
import triton
import triton.language as tl

from engine.kernels.cuda.cache_format import head_block, store_head
from engine.kernels.cuda.hadamard import hadamard, hadamard_stages
from engine.kernels.operands import Rotation
from engine.kv_cache import CacheLayer


@triton.jit
def turned_head(
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    dim: tl.constexpr,
    pairs: tl.constexpr,
    block: tl.constexpr,
) -> tl.tensor:
    """A head of `dim` floats at x, its first `pairs` neighbouring pairs turned: float32 [block].

    `cos`, `sin`: a position's, [pairs]. Behind `dim` the result is 0.
    """
    i = tl.arange(0, block // 2)
    even = tl.load(x + 2 * i, mask=2 * i < dim, other=0.0)
    odd = tl.load(x + 2 * i + 1, mask=2 * i + 1 < dim, other=0.0)
    c = tl.load(cos + i, mask=i < pairs, other=1.0)
    s = tl.load(sin + i, mask=i < pairs, other=0.0)
    return tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (block,))


@triton.jit
def rope_store_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    queries: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    pairs: tl.constexpr,
    key_block: tl.constexpr,
    value_block: tl.constexpr,
    key_stages: tl.constexpr,
    value_stages: tl.constexpr,
    format: tl.constexpr,
) -> None:
    """One head of one row a program: the query heads first, then those of keys, then those of values."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    turn = tl.load(positions + row).to(tl.int64) * pairs
    if head < heads:
        place = (row * heads + head) * key_dim
        x = turned_head(q + place, cos + turn, sin + turn, key_dim, pairs, key_block)
        if key_stages > 0:
            x = hadamard(x, key_block, key_stages)
        i = tl.arange(0, key_block)
        tl.store(queries + place + i, x.to(queries.dtype.element_ty), mask=i < key_dim)
    else:
        slot = tl.load(slots + row).to(tl.int64)
        if slot >= 0:
            if head < heads + kv_heads:
                own = head - heads
                place = (row * kv_heads + own) * key_dim
                x = turned_head(k + place, cos + turn, sin + turn, key_dim, pairs, key_block)
                target = slot * kv_heads + own
                store_head(x, keys, key_scales, target, key_dim, key_block, key_stages, format)
            else:
                own = head - heads - kv_heads
                i = tl.arange(0, value_block)
                place = (row * kv_heads + own) * value_dim
                x = tl.load(v + place + i, mask=i < value_dim, other=0.0)
                target = slot * kv_heads + own
                store_head(x, values, value_scales, target, value_dim, value_block, value_stages, format)


def rope_constants(layer: CacheLayer, heads: int, pairs: int) -> dict[str, int]:
    """What `rope_store_kernel` is compiled for."""
    key_dim, value_dim, quantised = layer.key_dim, layer.value_dim, layer.format.quantised
    return {
        "heads": heads,
        "kv_heads": layer.kv_heads,
        "key_dim": key_dim,
        "value_dim": value_dim,
        "pairs": pairs,
        "key_block": head_block(key_dim),
        "value_block": head_block(value_dim),
        "key_stages": hadamard_stages(key_dim) if quantised else 0,
        "value_stages": hadamard_stages(value_dim) if quantised else 0,
        "format": layer.format.value,
    }


def rope_store(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    rotation: Rotation,
    layer: CacheLayer,
) -> torch.Tensor:
    """Turn queries and keys to their positions and write keys and values to the cache.

    q [T, heads * key_dim], k [T, kv_heads * key_dim], v [T, kv_heads * value_dim]: float32, contiguous.
    `positions`, `slots`: int32 or int64 [T]; a row with slot -1 writes nothing. Returns the queries as
    `engine.kernels.cuda.attention` takes them, float16 [T, heads, key_dim], for a quantised cache rotated by
    the Hadamard matrix of its keys.
    """
    heads = q.shape[1] // layer.key_dim
    queries = torch.empty(len(q), heads, layer.key_dim, dtype=torch.float16, device=q.device)
    rope_store_kernel[(len(q), heads + 2 * layer.kv_heads)](
        q,
        k,
        v,
        positions,
        slots,
        rotation.cos,
        rotation.sin,
        queries,
        layer.keys,
        layer.key_scales,
        layer.values,
        layer.value_scales,
        **rope_constants(layer, heads, rotation.cos.shape[1]),
        num_warps=1,
    )
    return queries
