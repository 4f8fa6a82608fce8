"""Rows of a packed matrix times a few rows of activations, within a program.

A program takes a few rows of one matrix and goes along their columns, its lanes a group of 32 weights each,
so that nothing passes between lanes before the end. Integers are multiplied as they are, four at a time
(dp4a), with activations of 8 bits; the scales of a group join afterwards.
"""

import triton
import triton.language as tl

from engine.kernels.cuda.formats import has_halves, has_minimum, is_raised, is_signed, offset
from engine.kernels.cuda.groups import advance, load_scales, load_words, place
from engine.kernels.cuda.words import dot4, split4


@triton.jit
def integer_products(
    planes: tl.tuple,
    columns: tl.tuple,
    row: tl.tensor,
    groups: tl.constexpr,
    format: tl.constexpr,
    count: tl.constexpr,
    block_rows: tl.constexpr,
    block_groups: tl.constexpr,
    unroll: tl.constexpr,
    is_even: tl.constexpr,
) -> tl.tuple:
    """Rows `row` [block_rows] of a matrix times `count` rows of activations: so many float32 [block_rows]."""
    lane = tl.arange(0, block_groups)[None, :]
    word = tl.arange(0, 4)[None, None, :]
    pointers = place(planes, row, lane, groups, format)
    words = columns.words + 8 * lane[:, :, None] + word
    scales = columns.scales + lane
    sums = columns.sums + lane
    totals = (tl.zeros((block_rows, block_groups), tl.float32),) * count
    for start in range(0, groups, block_groups * unroll):
        for part in tl.static_range(unroll):
            done = part * block_groups
            mask = tl.full((1, block_groups), True, tl.int1) if is_even else start + done + lane < groups
            here = advance(pointers, done, format)
            weights = load_words(here, mask, format, is_raised(format))
            weight_scales = load_scales(here, mask, format)
            added = ()  # type: tuple[tl.tensor, ...]
            for t in tl.static_range(count):
                x_words = words + t * groups * 8 + 8 * done
                x = split4(tl.load(x_words, mask=mask[:, :, None], other=0)) + split4(
                    tl.load(x_words + 4, mask=mask[:, :, None], other=0)
                )
                scale = tl.load(scales + t * groups + done, mask=mask, other=0.0)
                x_sums = tl.load(sums + t * groups + done, mask=mask, other=0)
                product = _group_product(weights, weight_scales, x, x_sums, format)
                added += (totals[t] + scale * product,)
            totals = added
        pointers = advance(pointers, block_groups * unroll, format)
        words += 8 * block_groups * unroll
        scales += block_groups * unroll
        sums += block_groups * unroll
    return _row_sums(totals)


@triton.jit
def _row_sums(totals: tl.tuple) -> tl.tuple:
    """The sum of each row of each tensor."""
    sums = ()  # type: tuple[tl.tensor, ...]
    for t in tl.static_range(len(totals)):
        sums += (tl.sum(totals[t], 1),)
    return sums


@triton.jit
def _group_product(
    words: tl.tuple, scales: tl.tuple, x: tl.tuple, sums: tl.tensor, format: tl.constexpr
) -> tl.tensor:
    """Groups of weights times one row's integers [1, groups]: float32 [rows, groups], its scale left out.

    `sums`: of the integers, that of the first 16 in the lower half, of all in the upper.
    """
    d, dmin, first, last, first_minimum, last_minimum = scales
    signed: tl.constexpr = is_signed(format)
    first_sum = (sums << 16) >> 16
    total = sums >> 16
    last_sum = total - first_sum
    head = (
        tl.zeros_like(words[0]) - offset(format) * first_sum
        if has_halves(format)
        else tl.zeros_like(words[0])
    )
    for k in tl.static_range(4):
        head = dot4(words[k], x[k], head, signed)
    if has_halves(format):
        tail = tl.zeros_like(words[0]) - offset(format) * last_sum
        for k in tl.static_range(4, 8):
            tail = dot4(words[k], x[k], tail, signed)
        product = d * (first * head + last * tail).to(tl.float32)
        if has_minimum(format):
            product -= dmin * (first_minimum * first_sum + last_minimum * last_sum).to(tl.float32)
        return product
    if is_raised(format):
        tail = tl.zeros_like(words[0])
        for k in tl.static_range(4, 8):
            tail = dot4(words[k], x[k], tail, signed)
        head += tail >> 4
    else:
        for k in tl.static_range(4, 8):
            head = dot4(words[k], x[k], head, signed)
    if offset(format) != 0:
        head -= offset(format) * total
    product = d * (first * head).to(tl.float32)
    if has_minimum(format):
        product -= dmin * (first_minimum * total).to(tl.float32)
    return product


@triton.jit
def float_products(
    values: tl.tensor,
    floats: tl.tensor,
    row: tl.tensor,
    width: tl.constexpr,
    count: tl.constexpr,
    block_rows: tl.constexpr,
    block_width: tl.constexpr,
) -> tl.tuple:
    """As `integer_products`, for a matrix of floats [rows, width] and activations `floats` [count, width]."""
    lane = tl.arange(0, block_width)[None, :]
    weights = values + row.to(tl.int64)[:, None] * width + lane
    totals = (tl.zeros((block_rows, block_width), tl.float32),) * count
    for start in range(0, width, block_width):
        mask = start + lane < width
        w = tl.load(weights + start, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
        added = ()  # type: tuple[tl.tensor, ...]
        for t in tl.static_range(count):
            x = tl.load(floats + t * width + start + lane, mask=mask, other=0.0)
            added += (totals[t] + w * x,)
        totals = added
    return _row_sums(totals)
