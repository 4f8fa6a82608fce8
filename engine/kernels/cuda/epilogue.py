"""What follows a product: bias, theta, and the way to where the results go."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from engine.kernels.cuda.weight import CudaWeight

_BLOCK = 256
"""Rows of a matrix that a program of `finish` takes."""


class Epilogue(IntEnum):
    """What becomes of products y."""

    STORE = 0
    """out = y."""
    ADD = 1
    """out += y: the residual stream, in place."""
    GATE = 2
    """out = silu(y of the first matrix) * y of the second."""


STORE = tl.constexpr(Epilogue.STORE.value)
ADD = tl.constexpr(Epilogue.ADD.value)
GATE = tl.constexpr(Epilogue.GATE.value)


class Addends(NamedTuple):
    """What is added to the products of one matrix, as arguments: bias float32 [m], and theta.

    `u` float32 [m, rank], `half_gamma` float32, 0-dimensional. None where there is none.
    """

    bias: Any
    u: Any
    half_gamma: Any


def addends(weight: CudaWeight) -> Addends:
    """Those of a matrix, theta as it is in use now."""
    theta = weight.theta
    return Addends(weight.bias, *(None, None) if theta is None else (theta.u, theta.half_gamma))


def ranks(weights: Sequence[CudaWeight]) -> tuple[int, ...]:
    """The rank of theta in use for each matrix, 0 without."""
    return tuple(0 if weight.theta is None else weight.theta.rank for weight in weights)


@triton.constexpr_function
def rank_start(ranks: tuple[int, ...], at: int) -> int:
    """Where the projections of matrix `at` begin in a row of all."""
    return sum(ranks[:at])


@triton.constexpr_function
def next_power_of_2(number: int) -> int:
    """What a tile's side may be."""
    return int(triton.next_power_of_2(number))


@triton.jit
def with_addends(
    y: tl.tensor,
    addends: tl.tuple,
    projections: tl.tensor,
    t: tl.tensor,
    row: tl.tensor,
    mask: tl.tensor,
    ranks: tl.constexpr,
    at: tl.constexpr,
) -> tl.tensor:
    """Products y [rows] of matrix `at` for one row t of activations, plus bias and theta.

    `ranks`: of all matrices of the launch; `projections` float32 [T, their sum].
    """
    if addends.bias is not None:
        y += tl.load(addends.bias + row, mask=mask, other=0.0)
    if ranks[at] > 0:
        block: tl.constexpr = next_power_of_2(ranks[at])
        stride: tl.constexpr = rank_start(ranks, len(ranks))
        start: tl.constexpr = rank_start(ranks, at)
        rank = tl.arange(0, block)
        inside = rank < ranks[at]
        projection = tl.load(projections + t * stride + start + rank, mask=inside, other=0.0)
        u = tl.load(
            addends.u + row[:, None] * ranks[at] + rank[None, :],
            mask=mask[:, None] & inside[None, :],
            other=0.0,
        )
        y += tl.load(addends.half_gamma) * tl.sum(u * projection[None, :], 1)
    return y


@triton.jit
def gated(gate: tl.tensor, up: tl.tensor) -> tl.tensor:
    """silu(gate) * up."""
    return gate / (1.0 + tl.exp(-gate)) * up


@triton.jit
def put(out: tl.tensor, y: tl.tensor, mask: tl.tensor, epilogue: tl.constexpr) -> None:
    """Store results at the pointers `out`, or add them to what is there."""
    if epilogue == ADD:
        y += tl.load(out, mask=mask, other=0.0)
    tl.store(out, y, mask=mask)


class Finished(NamedTuple):
    """One matrix as arguments of `finish_kernel`: its rows, its addends, and where results go."""

    rows: Any
    addends: Addends
    out: Any
    out_stride: Any


@triton.jit
def _summed(
    partials: tl.tensor,
    place: tl.tensor,
    mask: tl.tensor,
    split_stride: tl.tensor,
    splits: tl.constexpr,
) -> tl.tensor:
    """The parts of a product along its columns, added in their order."""
    y = tl.load(partials + place, mask=mask, other=0.0).to(tl.float32)
    for split in tl.static_range(1, splits):
        y += tl.load(partials + split * split_stride + place, mask=mask, other=0.0).to(tl.float32)
    return y


@triton.jit
def finish_kernel(
    partials: tl.tensor,
    segments: tl.tuple,
    projections: tl.tensor,
    split_stride: tl.tensor,
    row_stride: tl.tensor,
    ranks: tl.constexpr,
    epilogue: tl.constexpr,
    splits: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Grid (T, blocks of rows of all matrices). `partials` [splits, T, rows of all matrices]."""
    t = tl.program_id(0).to(tl.int64)
    program = tl.program_id(1)
    partials += t * row_stride
    if epilogue == GATE:
        gate, up = segments
        row = program * block + tl.arange(0, block)
        mask = row < gate.rows
        y = with_addends(
            _summed(partials, row, mask, split_stride, splits),
            gate.addends,
            projections,
            t,
            row,
            mask,
            ranks,
            0,
        )
        other = with_addends(
            _summed(partials, gate.rows + row, mask, split_stride, splits),
            up.addends,
            projections,
            t,
            row,
            mask,
            ranks,
            1,
        )
        put(gate.out + t * gate.out_stride + row, gated(y, other), mask, epilogue)
    else:
        first = 0
        column = 0
        for at in tl.static_range(len(ranks)):
            segment = segments[at]
            programs = tl.cdiv(segment.rows, block)
            if (program >= first) & (program < first + programs):
                row = (program - first) * block + tl.arange(0, block)
                mask = row < segment.rows
                y = _summed(partials, column + row, mask, split_stride, splits)
                y = with_addends(y, segment.addends, projections, t, row, mask, ranks, at)
                put(segment.out + t * segment.out_stride + row, y, mask, epilogue)
            first += programs
            column += segment.rows


def finish(
    partials: torch.Tensor,
    weights: Sequence[CudaWeight],
    projections: torch.Tensor | None,
    epilogue: Epilogue,
    outs: Sequence[torch.Tensor],
) -> None:
    """Add the parts of products, bias and theta, and bring the results to `outs` float32 [T, m].

    `partials` [splits, T, rows of all `weights`], any float type; `GATE` has two weights and one out.
    """
    splits, rows, _ = partials.shape
    shared = outs if len(outs) == len(weights) else (*outs, *outs)
    programs = sum(triton.cdiv(out.shape[1], _BLOCK) for out in outs)
    finish_kernel[(rows, programs)](
        partials,
        tuple(
            Finished(weight.shape[0], addends(weight), out, out.stride(0))
            for weight, out in zip(weights, shared, strict=True)
        ),
        projections,
        partials.stride(0),
        partials.stride(1),
        ranks=ranks(weights),
        epilogue=epilogue.value,
        splits=splits,
        block=_BLOCK,
    )
