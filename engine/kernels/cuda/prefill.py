"""Attention over the paged cache for many rows of a sequence: prompts, whole or in chunks."""

import torch
import triton
import triton.language as tl

from engine.batch import Pages
from engine.kernels.cuda.attention import Scoring, attention_constants
from engine.kernels.cuda.cache_format import head_block, part_elements
from engine.kernels.cuda.hadamard import rotate_heads
from engine.kernels.cuda.softmax import attend, load_queries
from engine.kv_cache import CacheFormat, CacheLayer

_TILES = {
    CacheFormat.F16: {64: (128, 64), 128: (128, 64), 256: (64, 32)},
    CacheFormat.Q8: {64: (64, 32), 128: (64, 32), 256: (32, 32)},
    CacheFormat.Q4: {64: (64, 32), 128: (64, 16), 256: (32, 32)},
}
"""Queries and tokens of a tile, by the cache's format and the size up to which heads are filled."""


@triton.jit(do_not_specialize=["sequences", "max_pages", "window"])
def prefill_kernel(
    queries: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    tables: tl.tensor,
    lengths: tl.tensor,
    starts: tl.tensor,
    sequences: tl.tensor,
    out: tl.tensor,
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
    windowed: tl.constexpr,
    capped: tl.constexpr,
    format: tl.constexpr,
) -> None:
    """Some rows of one sequence, with the query heads of one KV head, against all that they see.

    The programs of sequence s begin with number starts[s] // rows + s, `rows` being those of a program: that
    leaves each sequence as many as it needs, or one more, which ends at once.
    """
    block_rows: tl.constexpr = queries_block // group
    program = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = 0
    behind = sequences
    while behind - sequence > 1:
        middle = (sequence + behind) // 2
        if tl.load(starts + middle) // block_rows + middle <= program:
            sequence = middle
        else:
            behind = middle
    row_start = tl.load(starts + sequence)
    rows = tl.load(starts + sequence + 1) - row_start
    first_row = (program - row_start // block_rows - sequence) * block_rows
    if first_row >= rows:
        return
    # Of a sequence of length 0 all rows have positions below 0.
    first = tl.load(lengths + sequence) - rows + first_row
    block_end = tl.minimum(rows - first_row, block_rows) + first

    number = tl.arange(0, queries_block)
    row = number // group
    valid = (row < block_rows) & (first + row < block_end)
    positions = tl.where(valid, first + row, -1)
    places = (
        (row_start + first_row + row).to(tl.int64) * (kv_heads * group) + kv_head * group + number % group
    )

    begin = 0
    # Tokens up to here are seen by all rows, and need no mask.
    clear = tl.maximum(first + 1, 0) // block * block
    if windowed:
        begin = tl.maximum(first + 1 - window, 0) // block * block
        clear = begin
    low_queries = load_queries(queries, places, part_elements(0, key_half, format), valid, key_dim)
    high_queries = load_queries(queries, places, part_elements(1, key_half, format), valid, key_dim)
    highest = tl.full((queries_block,), float("-inf"), tl.float32)
    total = tl.zeros((queries_block,), tl.float32)
    low_sums = tl.zeros((queries_block, value_half), tl.float32)
    high_sums = tl.zeros((queries_block, value_half), tl.float32)
    for masked in tl.static_range(2):
        if masked or not windowed:
            highest, total, low_sums, high_sums = attend(
                low_queries,
                high_queries,
                positions,
                keys,
                key_scales,
                values,
                value_scales,
                tables + tl.cast(sequence, tl.int64) * max_pages,
                kv_head,
                clear if masked else begin,
                block_end if masked else clear,
                scale,
                window,
                softcap,
                highest,
                total,
                low_sums,
                high_sums,
                kv_heads,
                key_dim,
                value_dim,
                key_half,
                value_half,
                page,
                block,
                masked,
                windowed,
                capped,
                format,
            )
    divisor = tl.where(total > 0.0, total, 1.0)
    for part in tl.static_range(2):
        elements = part_elements(part, value_half, format)
        mixed = (low_sums if part == 0 else high_sums) / divisor[:, None]
        mask = valid[:, None] & (elements < value_dim)[None, :]
        tl.store(out + places[:, None] * value_dim + elements[None, :], mixed, mask=mask)


def prefill_tile(group: int, layer: CacheLayer) -> dict[str, int]:
    """Tile and launch of `prefill_kernel` for so many query heads of a KV head; see `decode_tile`."""
    dims = layer.key_dim, layer.value_dim
    queries, block = _TILES[layer.format][min(256, max(64, head_block(max(dims))))]
    if layer.format is CacheFormat.F16 and any(dim & (dim - 1) for dim in dims):
        # The masks of heads that do not fill their tiles take registers.
        block = 32
    return {
        "queries_block": max(queries, triton.next_power_of_2(group)),
        "block": block,
        "num_warps": 8,
        "num_stages": 2,
    }


def prefill_attention(
    queries: torch.Tensor, layer: CacheLayer, pages: Pages, scoring: Scoring
) -> torch.Tensor:
    """Causal attention of any number of rows of each sequence over its context in the cache.

    `queries`: float16 [T, heads, key_dim], as `rope_store` returns them; every row is some sequence's. A
    cache of floats must be float16. Returns float32 [T, heads * value_dim].
    """
    count, heads, _ = queries.shape
    kv_heads, value_dim = layer.kv_heads, layer.value_dim
    group, sequences = heads // kv_heads, len(pages.lengths)
    tile = prefill_tile(group, layer)
    out = torch.empty(count, heads, value_dim, dtype=torch.float32, device=queries.device)
    prefill_kernel[(count // (tile["queries_block"] // group) + sequences, kv_heads)](
        queries,
        layer.keys,
        layer.key_scales,
        layer.values,
        layer.value_scales,
        pages.tables,
        pages.lengths,
        pages.starts,
        sequences,
        out,
        pages.tables.shape[1],
        scoring.scale,
        scoring.window or 0,
        scoring.softcap or 0.0,
        **attention_constants(layer, heads, pages.page_size, scoring),
        **tile,
    )
    if layer.format.quantised:
        rotate_heads(out)
    return out.flatten(1)
