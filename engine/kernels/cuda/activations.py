"""Activations as products want them: normalised, rounded, theta's projections ready. One launch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from engine.kernels.cuda.formats import GROUP
from engine.kernels.operands import Norm

_BLOCK_GROUPS = 64
"""Groups of 32 that a program rounds."""
_BLOCK_WIDTH = 4096
"""Columns that a program reads at a time for a sum along the row."""
_BLOCK_RANKS = 4
"""Projections of a row that a program computes: more would wait for one multiprocessor's reading."""


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """T rows of n, in the forms that were asked for; a form that was not is None.

    `integers` int8 [T, n]: x rounded to multiples of `scales` float32 [T, n / 32], the largest of 32 over
    127. `sums` int32 [T, n / 32]: of the integers, of the first 16 in the lower half of the word and of all
    in the upper. `floats` float32 or bfloat16 [T, n]: not rounded to integers. `projections` float32 [T,
    ranks]: x v^T of the unrounded rows, for the theta of each matrix in turn.
    """

    rows: int
    width: int
    integers: torch.Tensor | None
    scales: torch.Tensor | None
    sums: torch.Tensor | None
    floats: torch.Tensor | None
    projections: torch.Tensor | None


@triton.jit
def inverse_root(x: tl.tensor, width: tl.tensor, epsilon: tl.tensor, block: tl.constexpr) -> tl.tensor:
    """1 / sqrt(mean square + epsilon) of `width` floats at x."""
    squares = tl.zeros((block,), tl.float32)
    for start in range(0, width, block):
        place = start + tl.arange(0, block)
        values = tl.load(x + place, mask=place < width, other=0.0)
        squares += values * values
    return 1.0 / tl.sqrt(tl.sum(squares, 0) / width + epsilon)


@triton.jit
def round_groups(values: tl.tensor) -> tl.tuple:
    """Groups float32 [groups, 32] as (integers int8 [groups, 32], scales float32 and sums int32 [groups]).

    To the nearest integer, ties to even. See `Activations`. Groups too small for a scale become 0.
    """
    largest = tl.max(tl.abs(values), 1)
    usable = largest > 1e-35
    scales = tl.where(usable, largest / 127.0, 0.0)
    inverse = tl.where(usable, 127.0 / tl.where(usable, largest, 1.0), 0.0)
    # Adding 1.5 * 2^23 leaves no room for a fraction.
    integers = (((values * inverse[:, None]) + 12582912.0) - 12582912.0).to(tl.int32)
    first, last = tl.split(tl.trans(tl.sum(tl.reshape(integers, (values.shape[0], 2, 16)), 2), 0, 1))
    return integers.to(tl.int8), scales, (first & 0xFFFF) | ((first + last) << 16)


@triton.jit
def activations_kernel(
    x: tl.tensor,
    x_stride: tl.tensor,
    norm: tl.tensor,
    epsilon: tl.tensor,
    integers: tl.tensor,
    scales: tl.tensor,
    sums: tl.tensor,
    floats: tl.tensor,
    vs: tl.tuple,
    projections: tl.tensor,
    width: tl.tensor,
    ranks: tl.constexpr,
    block_groups: tl.constexpr,
    block_width: tl.constexpr,
    block_ranks: tl.constexpr,
) -> None:
    """Grid (T, programs of a row): those that round come first, then those that project, matrix by matrix.

    Each needs the norm of the whole row and computes it anew: the row is in the cache, and a launch is
    dearer.
    """
    t = tl.program_id(0).to(tl.int64)
    program = tl.program_id(1)
    x += t * x_stride
    factor = 1.0 if norm is None else inverse_root(x, width, epsilon, block_width)
    rounding = tl.cdiv(width, block_groups * 32)
    if program < rounding:
        group = program * block_groups + tl.arange(0, block_groups)
        place = group[:, None] * 32 + tl.arange(0, 32)[None, :]
        values = tl.load(x + place, mask=place < width, other=0.0) * factor
        if norm is not None:
            values *= tl.load(norm + place, mask=place < width, other=0.0)
        if floats is not None:
            tl.store(floats + t * width + place, values.to(floats.dtype.element_ty), mask=place < width)
        if integers is not None:
            rounded, scale, total = round_groups(values)
            tl.store(integers + t * width + place, rounded, mask=place < width)
            groups = width // 32
            tl.store(scales + t * groups + group, scale, mask=group < groups)
            tl.store(sums + t * groups + group, total, mask=group < groups)
    first = rounding
    column = 0
    for at in tl.static_range(len(ranks)):
        programs = (ranks[at] + block_ranks - 1) // block_ranks
        if (program >= first) & (program < first + programs):
            rank = (program - first) * block_ranks + tl.arange(0, block_ranks)
            total = tl.zeros((block_ranks, block_width), tl.float32)
            for start in range(0, width, block_width):
                place = start + tl.arange(0, block_width)
                values = tl.load(x + place, mask=place < width, other=0.0) * factor
                if norm is not None:
                    values *= tl.load(norm + place, mask=place < width, other=0.0)
                mask = (rank < ranks[at])[:, None] & (place < width)[None, :]
                v = tl.load(vs[at] + rank[:, None] * width + place[None, :], mask=mask, other=0)
                total += v.to(tl.float32) * values[None, :]
            tl.store(projections + t * _total(ranks) + column + rank, tl.sum(total, 1), mask=rank < ranks[at])
        first += programs
        column += ranks[at]


@triton.constexpr_function
def _total(ranks: tuple[int, ...]) -> int:
    """The projections of a row."""
    return sum(ranks)


def prepare(
    x: torch.Tensor,
    norm: Norm | None,
    vs: Sequence[torch.Tensor | None],
    *,
    integers: bool,
    floats: torch.dtype | None,
) -> Activations:
    """The rows x float32 [T, n], behind a norm if any, in the forms that are named.

    `vs`: for each matrix that shares the input theta's v [r, n], or None. `integers` wants n in multiples of
    32.
    """
    rows, width = x.shape
    groups = width // GROUP

    def empty(columns: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(rows, columns, dtype=dtype, device=x.device)

    used = tuple(v for v in vs if v is not None)
    ranks = tuple(len(v) for v in used)
    made = Activations(
        rows,
        width,
        empty(width, torch.int8) if integers else None,
        empty(groups, torch.float32) if integers else None,
        empty(groups, torch.int32) if integers else None,
        None if floats is None else empty(width, floats),
        empty(sum(ranks), torch.float32) if ranks else None,
    )
    block_width = min(_BLOCK_WIDTH, triton.next_power_of_2(width))
    block_groups = min(_BLOCK_GROUPS, triton.next_power_of_2(triton.cdiv(width, GROUP)))
    programs = triton.cdiv(width, block_groups * GROUP) + sum(triton.cdiv(r, _BLOCK_RANKS) for r in ranks)
    activations_kernel[(rows, programs)](
        x,
        x.stride(0),
        None if norm is None else norm.weight,
        0.0 if norm is None else norm.epsilon,
        made.integers,
        made.scales,
        made.sums,
        made.floats,
        used,
        made.projections,
        width,
        ranks=ranks,
        block_groups=block_groups,
        block_width=block_width,
        block_ranks=_BLOCK_RANKS,
        num_warps=8,
    )
    return made
