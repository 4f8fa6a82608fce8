"""Products of packed matrices with some tens of rows of activations, on tensor cores.

A tile of weights becomes bfloat16 and meets all rows at once: some 7 instructions for a weight, whatever T
is (Q4_K on sm_90, from the machine code). Products of integers would leave the tensor cores after every 32
columns, for their scales, with three instructions for each group and row of activations: 0.1 T for a weight
beside 1 to unpack it, and twice that where scales are of 16 columns. That is less up to T = 64 or 32, but has
the tensor cores wait for each group, and rounds activations to 8 bits. To be measured on a card.

The results are parts: of each stretch of columns one, so that small matrices keep a whole card busy.
`epilogue.finish` adds them up, in order: a launch's results do not depend on chance.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from engine.kernels.cuda.formats import GROUP, GROUPS_PER_SUPER
from engine.kernels.cuda.groups import PlanePointers, place, plane_pointers
from engine.kernels.cuda.interpret import INTERPRETED
from engine.kernels.cuda.planes import Planes
from engine.kernels.cuda.values import load_values

MOST_ROWS = 96
"""Rows of activations up to which this should beat dequantising for a library: an estimate."""
_BLOCK_ROWS = 64
"""Rows of a matrix in a tile: what one warp group multiplies at a time on sm_90."""
_BLOCK_GROUPS = 4
"""Groups of 32 columns in a tile: more would not fit the registers beside the results."""
_PROGRAMS = 264
"""Programs that a launch should have: two for each multiprocessor of the largest cards."""


class Tile(NamedTuple):
    """How programs share the work: columns of the product (rows of activations), warps, loads under way."""

    columns: int
    warps: int
    stages: int


def tile_for(count: int) -> Tile:
    """For `count` rows of activations. Two stages of the wide tiles leave room for two programs on sm_89."""
    block = max(16, triton.next_power_of_2(count))
    return Tile(block, 8 if block > 64 else 4, 2 if block > 32 else 3)


class Operand(NamedTuple):
    """One matrix as arguments: its planes, its rows, and the column of the results where its own begin."""

    planes: PlanePointers
    rows: Any
    column: Any


@triton.jit
def gemm_kernel(
    operands: tl.tuple,
    x: tl.tensor,
    partials: tl.tensor,
    count: tl.tensor,
    groups: tl.tensor,
    groups_of_split: tl.tensor,
    row_stride: tl.tensor,
    formats: tl.constexpr,
    block_rows: tl.constexpr,
    block_count: tl.constexpr,
    block_groups: tl.constexpr,
) -> None:
    """Grid (tiles of rows of all matrices, splits of the columns).

    x bfloat16 [count, 32 groups]; `partials` float32 [splits, count, rows of all matrices].
    """
    tile = tl.program_id(0)
    split = tl.program_id(1)
    before = 0
    for at in tl.static_range(len(formats)):
        operand = operands[at]
        tiles = tl.cdiv(operand.rows, block_rows)
        if (tile >= before) & (tile < before + tiles):
            row = (tile - before) * block_rows + tl.arange(0, block_rows)
            product = tile_product(
                operand.planes,
                x,
                tl.minimum(row, operand.rows - 1),
                split * groups_of_split,
                tl.minimum(groups, (split + 1) * groups_of_split),
                count,
                groups,
                formats[at],
                block_count,
                block_groups,
            )
            t = tl.arange(0, block_count)
            to = partials + (split * count + t).to(tl.int64)[None, :] * row_stride
            mask = (row < operand.rows)[:, None] & (t < count)[None, :]
            tl.store(to + operand.column + row[:, None], product, mask=mask)
        before += tiles


@triton.jit
def tile_product(
    planes: tl.tuple,
    x: tl.tensor,
    row: tl.tensor,
    start: tl.tensor,
    stop: tl.tensor,
    count: tl.tensor,
    groups: tl.tensor,
    format: tl.constexpr,
    block_count: tl.constexpr,
    block_groups: tl.constexpr,
) -> tl.tensor:
    """Rows `row` times all of x over the groups start .. stop, float32 [rows, block_count]."""
    rows: tl.constexpr = row.shape[0]
    t = tl.arange(0, block_count)[None, :]
    lane = tl.arange(0, block_groups)[None, :]
    column = tl.arange(0, block_groups * 32)[:, None]
    x_pointers = x + t * (groups * 32) + column
    total = tl.zeros((rows, block_count), tl.float32)
    for group in range(start, stop, block_groups):
        pointers = place(planes, row, group + lane, groups, format)
        weights = load_values(pointers, group + lane < stop, format).to(tl.bfloat16)
        weights = tl.reshape(weights, (rows, block_groups * 32))
        inside = (t < count) & (group * 32 + column < stop * 32)
        values = tl.load(x_pointers + group * 32, mask=inside, other=0.0)
        if INTERPRETED:
            total += tl.dot(weights.to(tl.float32), values.to(tl.float32))
        else:
            total = tl.dot(weights, values, total)
    return total


def split_columns(tiles: int, groups: int) -> tuple[int, int]:
    """(splits, groups of each): so many that there is work for a card, in whole super-blocks."""
    steps = triton.cdiv(groups, GROUPS_PER_SUPER)
    splits = max(1, min(steps // 4, _PROGRAMS // tiles))
    of_split = triton.cdiv(steps, splits)
    return triton.cdiv(steps, of_split), of_split * GROUPS_PER_SUPER


def gemm(x: torch.Tensor, matrices: Sequence[Planes]) -> torch.Tensor:
    """Products of x bfloat16 [T, n], contiguous, T <= `MOST_ROWS`, with matrices of integers, in parts.

    float32 [splits, T, rows of all matrices].
    """
    count, width = x.shape
    assert count <= MOST_ROWS
    groups = width // GROUP
    tiles = sum(triton.cdiv(planes.shape[0], _BLOCK_ROWS) for planes in matrices)
    splits, groups_of_split = split_columns(tiles, groups)
    total = sum(planes.shape[0] for planes in matrices)
    partials = torch.empty(splits, count, total, dtype=torch.float32, device=x.device)
    operands, column = [], 0
    for planes in matrices:
        operands.append(Operand(plane_pointers(planes), planes.shape[0], column))
        column += planes.shape[0]
    tile = tile_for(count)
    gemm_kernel[(tiles, splits)](
        tuple(operands),
        x,
        partials,
        count,
        groups,
        groups_of_split,
        partials.stride(1),
        formats=tuple(int(planes.type) for planes in matrices),
        block_rows=_BLOCK_ROWS,
        block_count=tile.columns,
        block_groups=_BLOCK_GROUPS,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return partials
