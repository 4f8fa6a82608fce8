"""Attention over the paged cache for a few rows of each sequence: the decode step.

Each sequence's context is split between programs, for one sequence alone must fill the card
(Flash-Decoding, Dao et al. 2023); a second kernel merges the parts. How many splits there are depends on the
number of sequences, not on their lengths: the launches can be recorded in a CUDA graph.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from engine.batch import Pages
from engine.kernels.cuda.cache_format import half_block, part_elements
from engine.kernels.cuda.hadamard import hadamard, hadamard_stages
from engine.kernels.cuda.softmax import attend, load_queries
from engine.kv_cache import CacheLayer

MAX_SPLITS = 64
_WAVES = 2
"""Programs for each multiprocessor, as far as the splits allow."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How queries and keys become scores.

    They are multiplied by `scale`. With a `softcap` they are softcap * tanh(score / softcap). With a `window`
    of at least 1 a token sees itself and the `window` - 1 in front of it.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None


@triton.jit(do_not_specialize=["max_pages", "window"])
def decode_kernel(
    queries: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    tables: tl.tensor,
    lengths: tl.tensor,
    starts: tl.tensor,
    sums: tl.tensor,
    logs: tl.tensor,
    max_pages: tl.tensor,
    scale: tl.tensor,
    window: tl.tensor,
    softcap: tl.tensor,
    group: tl.constexpr,
    kv_heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    key_half: tl.constexpr,
    value_half: tl.constexpr,
    page: tl.constexpr,
    queries_block: tl.constexpr,
    block: tl.constexpr,
    splits: tl.constexpr,
    windowed: tl.constexpr,
    capped: tl.constexpr,
    format: tl.constexpr,
) -> None:
    """One split of a sequence's context for the queries of one KV head, all rows of the sequence.

    Writes `sums` [T, heads, splits, value_dim], weighted means of values, and `logs` [T, heads, splits], the
    base-2 logarithms of the sums of these weights; -inf: nothing was seen, and the means are not written.
    """
    sequence = tl.program_id(0) // kv_heads
    kv_head = tl.program_id(0) % kv_heads
    split = tl.program_id(1)
    row_start = tl.load(starts + sequence)
    rows = tl.load(starts + sequence + 1) - row_start
    length = tl.load(lengths + sequence)

    number = tl.arange(0, queries_block)
    row = number // group
    valid = row < rows
    positions = tl.where(valid, length - rows + row, -1)
    places = (row_start + row).to(tl.int64) * (kv_heads * group) + kv_head * group + number % group

    begin = 0
    if windowed:
        begin = tl.maximum(length - rows + 1 - window, 0) // block * block
    share = tl.cdiv(tl.cdiv(length - begin, splits), block) * block
    start = begin + split * share
    stop = tl.minimum(start + share, length)

    low_elements = part_elements(0, key_half, format)
    high_elements = part_elements(1, key_half, format)
    highest, total, low_sums, high_sums = attend(
        load_queries(queries, places, low_elements, valid, key_dim),
        load_queries(queries, places, high_elements, valid, key_dim),
        positions,
        keys,
        key_scales,
        values,
        value_scales,
        tables + sequence.to(tl.int64) * max_pages,
        kv_head,
        start,
        stop,
        scale,
        window,
        softcap,
        tl.full((queries_block,), float("-inf"), tl.float32),
        tl.zeros((queries_block,), tl.float32),
        tl.zeros((queries_block, value_half), tl.float32),
        tl.zeros((queries_block, value_half), tl.float32),
        kv_heads,
        key_dim,
        value_dim,
        key_half,
        value_half,
        page,
        block,
        True,
        windowed,
        capped,
        format,
    )
    seen = valid & (total > 0.0)
    divisor = tl.where(seen, total, 1.0)
    targets = places * splits + split
    tl.store(logs + targets, tl.where(seen, highest + tl.log2(divisor), float("-inf")), mask=valid)
    for part in tl.static_range(2):
        elements = part_elements(part, value_half, format)
        mixed = (low_sums if part == 0 else high_sums) / divisor[:, None]
        mask = seen[:, None] & (elements < value_dim)[None, :]
        tl.store(sums + targets[:, None] * value_dim + elements[None, :], mixed, mask=mask)


@triton.jit(do_not_specialize=["sequences"])
def merge_kernel(
    sums: tl.tensor,
    logs: tl.tensor,
    starts: tl.tensor,
    sequences: tl.tensor,
    out: tl.tensor,
    heads: tl.constexpr,
    splits: tl.constexpr,
    dim: tl.constexpr,
    block: tl.constexpr,
    stages: tl.constexpr,
) -> None:
    """Merge the splits of one head of one row, and rotate it back if it was rotated."""
    row = tl.program_id(0)
    place = row.to(tl.int64) * heads + tl.program_id(1)
    split = tl.arange(0, splits)
    # Rows behind those of all sequences have no parts.
    known = row < tl.load(starts + sequences)
    weights = tl.load(logs + place * splits + split, mask=known & (split >= 0), other=float("-inf"))
    highest = tl.max(weights, 0)
    weights = tl.exp2(weights - tl.where(highest == float("-inf"), 0.0, highest))
    total = tl.sum(weights, 0)
    element = tl.arange(0, block)
    mask = (weights > 0.0)[:, None] & (element < dim)[None, :]
    parts = tl.load(sums + (place * splits + split)[:, None] * dim + element[None, :], mask=mask, other=0.0)
    mixed = tl.sum(parts * weights[:, None], 0) / tl.where(total > 0.0, total, 1.0)
    if stages > 0:
        mixed = hadamard(mixed, block, stages)
    tl.store(out + place * dim + element, mixed, mask=element < dim)


def attention_constants(
    layer: CacheLayer, heads: int, page_size: int, scoring: Scoring
) -> dict[str, int | bool]:
    """What kernels of attention are compiled for, tiles aside: heads, formats, and steps that are needed."""
    return {
        "group": heads // layer.kv_heads,
        "kv_heads": layer.kv_heads,
        "key_dim": layer.key_dim,
        "value_dim": layer.value_dim,
        "key_half": half_block(layer.key_dim),
        "value_half": half_block(layer.value_dim),
        "page": page_size,
        "windowed": scoring.window is not None,
        "capped": scoring.softcap is not None,
        "format": layer.format.value,
    }


def decode_tile(queries: int, layer: CacheLayer) -> dict[str, int]:
    """Tile and launch of `decode_kernel` for so many queries of a KV head.

    The largest of which nothing is spilled; integers on their way to floats need registers too.
    """
    small = max(layer.key_dim, layer.value_dim) <= 128
    quantised = layer.format.quantised
    queries_block = max(16, triton.next_power_of_2(queries))
    return {
        "queries_block": queries_block,
        "block": 64 if small and not quantised else 32,
        "num_warps": 4 if not quantised or (small and queries_block == 16) else 8,
        "num_stages": 2,
    }


def merge_constants(layer: CacheLayer, heads: int, splits: int) -> dict[str, int]:
    """What `merge_kernel` is compiled for."""
    return {
        "heads": heads,
        "splits": splits,
        "dim": layer.value_dim,
        "block": triton.next_power_of_2(layer.value_dim),
        "stages": hadamard_stages(layer.value_dim) if layer.format.quantised else 0,
    }


def context_splits(programs: int, processors: int) -> int:
    """Splits of each context, a power of two, that make enough programs of `programs` for the processors."""
    wanted = max(1, _WAVES * processors // max(1, programs))
    return min(MAX_SPLITS, 1 << (wanted.bit_length() - 1))


def decode_attention(
    queries: torch.Tensor,
    layer: CacheLayer,
    pages: Pages,
    scoring: Scoring,
    processors: int,
) -> torch.Tensor:
    """Causal attention of a few rows of each sequence over its context in the cache.

    `queries`: float16 [T, heads, key_dim], as `rope_store` returns them. `processors`: multiprocessors of the
    card. A cache of floats must be float16. Returns float32 [T, heads * value_dim]; other rows are 0.
    """
    count, heads, _ = queries.shape
    kv_heads, value_dim = layer.kv_heads, layer.value_dim
    sequences = len(pages.lengths)
    splits = context_splits(sequences * kv_heads, processors)
    sums = torch.empty(count, heads, splits, value_dim, dtype=torch.float32, device=queries.device)
    logs = torch.empty(count, heads, splits, dtype=torch.float32, device=queries.device)
    decode_kernel[(sequences * kv_heads, splits)](
        queries,
        layer.keys,
        layer.key_scales,
        layer.values,
        layer.value_scales,
        pages.tables,
        pages.lengths,
        pages.starts,
        sums,
        logs,
        pages.tables.shape[1],
        scoring.scale,
        scoring.window or 0,
        scoring.softcap or 0.0,
        splits=splits,
        **attention_constants(layer, heads, pages.page_size, scoring),
        **decode_tile(pages.rows * (heads // kv_heads), layer),
    )
    out = torch.empty(count, heads * value_dim, dtype=torch.float32, device=queries.device)
    merge_kernel[(count, heads)](
        sums, logs, pages.starts, sequences, out, **merge_constants(layer, heads, splits), num_warps=4
    )
    return out
