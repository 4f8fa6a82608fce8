"""Draws tokens where the logits lie, by the usual chain: the k best, top-p, min-p, temperature.

The same arithmetic as `engine.native.shortlist.draw`, so that a seed gives the same text on every device. All
is queued without waiting for the device, and can be recorded in a CUDA graph.
"""

import torch
import triton
import triton.language as tl

from engine.kernels.operands import Draws

MOST_CANDIDATES = 8192
"""Of one draw: what a program's registers hold."""

_BLOCK = 1024
_BOUND = tl.constexpr(1e30)
"""Finite logits stay within this, as in `engine.sampling.candidates`."""
_LOWEST_KEY = tl.constexpr(-(2**63))


@triton.jit
def rank_kernel(logits: tl.tensor, keys: tl.tensor, vocab: tl.tensor, block: tl.constexpr) -> None:
    """An int64 key for each logit of [B, vocab]: larger logits have larger keys, of equal ones lower ids.

    NaN counts as very unlikely, infinity as very likely; minus infinity, an excluded token, has the lowest
    key.
    """
    row = tl.program_id(0).to(tl.int64) * vocab
    token = tl.program_id(1) * block + tl.arange(0, block)
    valid = token < vocab
    logit = tl.load(logits + row + token, mask=valid, other=0.0)
    logit = tl.where(logit == logit, tl.minimum(logit, _BOUND), -_BOUND)
    # One zero of the two: they are equal.
    bits = tl.where(logit == 0.0, 0.0, logit).to(tl.int32, bitcast=True)
    # As integers, floats are in order if the bits of negative ones are turned round.
    rank = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = (rank.to(tl.int64) << 32) | (0x7FFFFFFF - token).to(tl.int64)
    key = tl.where(logit == float("-inf"), _LOWEST_KEY, key)
    tl.store(keys + row + token, key, mask=valid)


@triton.jit
def _odds(logits: tl.tensor, kept: tl.tensor, best: tl.tensor) -> tl.tensor:
    """Cumulative softmax of the logits that are kept, a first part of them: float64."""
    odds = tl.where(kept, tl.exp((logits - best).to(tl.float64)), 0.0)
    return tl.cumsum(odds / tl.sum(odds, 0), 0)


@triton.jit(do_not_specialize=["most"])
def draw_kernel(
    keys: tl.tensor,
    table: tl.tensor,
    tokens: tl.tensor,
    most: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Draw the token of one row from its keys [B, most], which fall, as its column of `Draws.table` says."""
    row = tl.program_id(0)
    rows = tl.num_programs(0)
    cut = tl.load(table + row).to(tl.int32)
    top_p = tl.load(table + rows + row)
    distance = tl.load(table + 2 * rows + row).to(tl.float32)
    temperature = tl.load(table + 3 * rows + row).to(tl.float32)
    u = tl.load(table + 4 * rows + row)
    place = tl.arange(0, block)
    key = tl.load(keys + row.to(tl.int64) * most + place, mask=place < most, other=_LOWEST_KEY)
    rank = (key >> 32).to(tl.int32)
    logit = (rank ^ ((rank >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    found = tl.sum((key != _LOWEST_KEY).to(tl.int32), 0)
    logit = tl.where(place < found, logit, 0.0)
    count = tl.maximum(tl.minimum(found, cut), 1)
    best = tl.sum(tl.where(place == 0, logit, 0.0), 0)

    if top_p < 1.0:
        kept = place < count
        reached = _odds(logit, kept, best) >= top_p
        count = tl.minimum(count, tl.sum((kept & (reached == 0)).to(tl.int32), 0) + 1)
    near = (place < count) & (logit >= best - distance)
    count = tl.minimum(count, tl.maximum(tl.sum(near.to(tl.int32), 0), 1))
    kept = place < count
    reached = _odds(tl.div_rn(logit, temperature), kept, tl.div_rn(best, temperature)) >= u
    index = tl.minimum(tl.sum((kept & (reached == 0)).to(tl.int32), 0), count - 1)
    # The complement of the token is the lower half of its key.
    chosen = tl.sum(tl.where(place == index, key & 0x7FFFFFFF, 0), 0)
    tl.store(tokens + row, tl.where(found > 0, 0x7FFFFFFF - chosen, -1))


def sample(logits: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Draw a token for each row of logits, float32 [B, vocab], contiguous: int64 [B].

    -1 in place of a token: every token of the row is excluded, or it holds NaN or infinity. Raises
    `ValueError` for draws from fewer than one or more than `MOST_CANDIDATES`.
    """
    if not 1 <= draws.most <= MOST_CANDIDATES:
        raise ValueError(f"{draws.most} candidates: 1 to {MOST_CANDIDATES} can be drawn from")
    rows, vocab = logits.shape
    keys = torch.empty(rows, vocab, dtype=torch.int64, device=logits.device)
    rank_kernel[(rows, triton.cdiv(vocab, _BLOCK))](logits, keys, vocab, block=_BLOCK, num_warps=4)
    best = keys.topk(min(draws.most, vocab)).values
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    most = best.shape[1]
    draw_kernel[(rows,)](best, draws.table, tokens, most, **draw_launch(most))
    # The largest of a row with NaN is NaN, which no comparison holds for.
    return torch.where(logits.amax(1) <= _BOUND.value, tokens, -1)


def draw_launch(most: int) -> dict[str, int]:
    """Tile and launch of `draw_kernel`."""
    block = triton.next_power_of_2(most)
    return {"block": block, "num_warps": min(16, max(1, block // 256))}
