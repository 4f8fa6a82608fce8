"""The inner loop of attention: one tile of queries against a stretch of a paged context.

Softmax is taken online, block by block (FlashAttention, Dao et al. 2022), in powers of two.
"""

import triton
import triton.language as tl

from engine.kernels.cuda.cache_format import load_heads

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attend(
    low_queries: tl.tensor,
    high_queries: tl.tensor,
    positions: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    table: tl.tensor,
    kv_head: tl.tensor,
    start: tl.tensor,
    stop: tl.tensor,
    scale: tl.tensor,
    window: tl.tensor,
    softcap: tl.tensor,
    highest: tl.tensor,
    total: tl.tensor,
    low_sums: tl.tensor,
    high_sums: tl.tensor,
    kv_heads: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    key_half: tl.constexpr,
    value_half: tl.constexpr,
    page: tl.constexpr,
    block: tl.constexpr,
    masked: tl.constexpr,
    windowed: tl.constexpr,
    capped: tl.constexpr,
    format: tl.constexpr,
) -> tl.tensor:
    """Go on with the softmax of M queries over the tokens `start` to `stop` of one sequence.

    Queries: float16 [M, key_half] in two parts (`cache_format`), at `positions` int32 [M], which see tokens
    up to their own, of which `windowed` leaves the last `window`; a position of -1 sees nothing. Without
    `masked` all queries see all of these tokens, whole blocks of them. `table`: the sequence's pages, int32.
    `capped`: scores are softcap * tanh(score / softcap).

    State, float32: the `highest` score [M] times log2(e), -inf at first; the `total` [M] of 2^(score -
    highest); the sums of values weighted likewise [M, value_half], in two parts. Returns the new state.
    """
    for first in range(start, stop, block):
        tokens = first + tl.arange(0, block)
        inside = tokens < stop
        slots = tl.load(table + tokens // page, mask=inside, other=0).to(tl.int64) * page + tokens % page
        heads = slots * kv_heads + kv_head
        low, high = load_heads(keys, key_scales, heads, inside, block, key_dim, key_half, format)
        scores = tl.dot(low_queries, tl.trans(low))
        scores = tl.dot(high_queries, tl.trans(high), scores) * scale
        if capped:
            # tanh x = 1 - 2 / (e^(2x) + 1)
            scores = softcap - 2.0 * softcap / (tl.exp2(scores * (2.0 * LOG2_E / softcap)) + 1.0)
        scores *= LOG2_E
        if masked:
            seen = inside[None, :] & (tokens[None, :] <= positions[:, None])
            if windowed:
                seen = seen & (tokens[None, :] > positions[:, None] - window)
            scores = tl.where(seen, scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        # A query that has seen nothing yet has no highest score to subtract.
        base = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        shrink = tl.exp2(highest - base)
        odds = tl.exp2(scores - base[:, None])
        total = total * shrink + tl.sum(odds, 1)
        low, high = load_heads(values, value_scales, heads, inside, block, value_dim, value_half, format)
        odds = odds.to(tl.float16)
        low_sums = tl.dot(odds, low, low_sums * shrink[:, None])
        high_sums = tl.dot(odds, high, high_sums * shrink[:, None])
        highest = new_highest
    return highest, total, low_sums, high_sums


@triton.jit
def load_queries(
    queries: tl.tensor,
    places: tl.tensor,
    elements: tl.tensor,
    valid: tl.tensor,
    dim: tl.constexpr,
) -> tl.tensor:
    """One part of some queries: float16 [M, half], 0 where `valid` [M] says no or behind `dim`.

    `places`: int64 [M], row * heads + head; `elements`: which of a head's the part holds, int32 [half].
    """
    mask = valid[:, None] & (elements < dim)[None, :]
    return tl.load(queries + places[:, None] * dim + elements[None, :], mask=mask, other=0.0)
