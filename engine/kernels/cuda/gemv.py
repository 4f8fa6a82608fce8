"""Products of packed matrices with a few rows of activations, in one launch for all that share an input."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from engine.kernels.cuda.activations import Activations
from engine.kernels.cuda.epilogue import GATE, Addends, Epilogue, addends, gated, put, ranks, with_addends
from engine.kernels.cuda.formats import GROUP, is_float
from engine.kernels.cuda.groups import PlanePointers, plane_pointers
from engine.kernels.cuda.products import float_products, integer_products
from engine.kernels.cuda.weight import CudaWeight

MOST_COLUMNS = 8
"""Rows of activations (columns of the product) that one launch takes."""


class Columns(NamedTuple):
    """The activations as arguments: words of four int8 [T, n / 4], float32 scales and int32 sums [T, n / 32].

    `floats` float32 [T, n], for matrices of floats. See `Activations`.
    """

    words: Any
    scales: Any
    sums: Any
    floats: Any


class Segment(NamedTuple):
    """One matrix as arguments: its planes, rows and addends, and where results go, float32 [T, rows]."""

    planes: PlanePointers
    rows: Any
    addends: Addends
    out: Any
    out_stride: Any


@triton.jit
def _products(
    segment: tl.tuple,
    columns: tl.tuple,
    row: tl.tensor,
    width: tl.constexpr,
    format: tl.constexpr,
    count: tl.constexpr,
    block_rows: tl.constexpr,
    block_groups: tl.constexpr,
    unroll: tl.constexpr,
    is_even: tl.constexpr,
) -> tl.tuple:
    """Rows of one matrix, past its end the last one again, times all rows of activations."""
    row = tl.minimum(row, segment.rows - 1)
    if is_float(format):
        products = float_products(
            segment.planes.low, columns.floats, row, width, count, block_rows, 4 * block_groups
        )
    else:
        products = integer_products(
            segment.planes,
            columns,
            row,
            width // 32,
            format,
            count,
            block_rows,
            block_groups,
            unroll,
            is_even,
        )
    return products


@triton.jit
def gemv_kernel(
    segments: tl.tuple,
    columns: tl.tuple,
    projections: tl.tensor,
    width: tl.constexpr,
    formats: tl.constexpr,
    ranks: tl.constexpr,
    epilogue: tl.constexpr,
    count: tl.constexpr,
    block_rows: tl.constexpr,
    block_groups: tl.constexpr,
    unroll: tl.constexpr,
    is_even: tl.constexpr,
) -> None:
    """Grid (blocks of rows of all matrices); with `GATE`, blocks of rows that both matrices have."""
    program = tl.program_id(0)
    if epilogue == GATE:
        gate, up = segments
        row = program * block_rows + tl.arange(0, block_rows)
        mask = row < gate.rows
        firsts = _products(
            gate, columns, row, width, formats[0], count, block_rows, block_groups, unroll, is_even
        )
        seconds = _products(
            up, columns, row, width, formats[1], count, block_rows, block_groups, unroll, is_even
        )
        for t in tl.static_range(count):
            first = with_addends(firsts[t], gate.addends, projections, t, row, mask, ranks, 0)
            second = with_addends(seconds[t], up.addends, projections, t, row, mask, ranks, 1)
            put(gate.out + t * gate.out_stride + row, gated(first, second), mask, epilogue)
    else:
        before = 0
        for at in tl.static_range(len(formats)):
            segment = segments[at]
            programs = tl.cdiv(segment.rows, block_rows)
            if (program >= before) & (program < before + programs):
                row = (program - before) * block_rows + tl.arange(0, block_rows)
                mask = row < segment.rows
                results = _products(
                    segment,
                    columns,
                    row,
                    width,
                    formats[at],
                    count,
                    block_rows,
                    block_groups,
                    unroll,
                    is_even,
                )
                for t in tl.static_range(count):
                    y = with_addends(results[t], segment.addends, projections, t, row, mask, ranks, at)
                    put(segment.out + t * segment.out_stride + row, y, mask, epilogue)
            before += programs


class Tiling(NamedTuple):
    """How programs share the work: rows of one, warps, a group for each lane, and how often at once."""

    rows: int
    warps: int
    unroll: int


def tiling(rows: int, width: int, count: int) -> Tiling:
    """For all rows of a launch (m in sum), n = `width` and `count` rows of activations.

    More rows share what is loaded of the activations, more warps hide memory's latency in short matrices.
    Registers limit rows times activations.
    """
    groups = width // GROUP
    warps = 1 if groups <= 64 or rows > 32768 else 2 if groups <= 256 else 4
    if count > 2:
        return Tiling(2, warps, 1)
    return Tiling(4 if rows >= 16384 else 2, warps, 1 if groups <= 32 * warps else 2)


def gemv(
    x: Activations, weights: Sequence[CudaWeight], epilogue: Epilogue, outs: Sequence[torch.Tensor]
) -> None:
    """The products of all `weights` with x, of at most `MOST_COLUMNS` rows, to `outs` float32 [T, m].

    x has integers for matrices of integers, float32 rows for those of floats, and the projections of these
    weights. `GATE` has two weights and one out.
    """
    assert x.rows <= MOST_COLUMNS
    shared = outs if len(outs) == len(weights) else (*outs, *outs)
    total = sum(out.shape[1] for out in outs)
    block_rows, warps, unroll = tiling(total, x.width, x.rows)
    groups, block_groups = x.width // GROUP, 32 * warps
    words = None if x.integers is None else x.integers.view(torch.int32)
    programs = sum(triton.cdiv(out.shape[1], block_rows) for out in outs)
    gemv_kernel[(programs,)](
        tuple(
            Segment(plane_pointers(weight.planes), weight.shape[0], addends(weight), out, out.stride(0))
            for weight, out in zip(weights, shared, strict=True)
        ),
        Columns(words, x.scales, x.sums, x.floats),
        x.projections,
        width=x.width,
        formats=tuple(int(weight.planes.type) for weight in weights),
        ranks=ranks(weights),
        epilogue=epilogue.value,
        count=x.rows,
        block_rows=block_rows,
        block_groups=block_groups,
        unroll=unroll,
        is_even=groups % (block_groups * unroll) == 0,
        num_warps=warps,
    )
