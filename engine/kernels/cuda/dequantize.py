"""Packed matrices as floats, for products that a library computes."""

import torch
import triton
import triton.language as tl

from engine.kernels.cuda.formats import FLOATS, GROUP
from engine.kernels.cuda.groups import place, plane_pointers
from engine.kernels.cuda.planes import Planes
from engine.kernels.cuda.values import load_values

_BLOCK_GROUPS = 32
"""Groups of a program."""
_BLOCK_ROWS = 4
"""Rows of a program."""


@triton.jit
def dequantize_kernel(
    planes: tl.tuple,
    ids: tl.tensor,
    out: tl.tensor,
    start: tl.tensor,
    rows: tl.tensor,
    groups: tl.tensor,
    format: tl.constexpr,
    block_rows: tl.constexpr,
    block_groups: tl.constexpr,
) -> None:
    """Grid (blocks of rows, of groups). out [rows, 32 groups]: rows `ids`, or, without ids, `start` on."""
    target = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    inside = target < rows
    source = start + target
    if ids is not None:
        source = tl.load(ids + target, mask=inside, other=0)
    group = tl.program_id(1) * block_groups + tl.arange(0, block_groups)[None, :]
    mask = inside[:, None] & (group < groups)
    values = load_values(place(planes, source, group, groups, format), mask, format)
    weight = tl.arange(0, 32)[None, None, :]
    to = out + (target.to(tl.int64)[:, None] * groups + group)[:, :, None] * 32 + weight
    tl.store(to, values.to(out.dtype.element_ty), mask=mask[:, :, None])


def dequantize_rows(
    planes: Planes, ids: torch.Tensor | None, start: int, rows: int, dtype: torch.dtype
) -> torch.Tensor:
    """Rows `ids` int64 [rows], or `rows` of them from `start` on, of a matrix of integers: [rows, n]."""
    out = torch.empty(rows, planes.shape[1], dtype=dtype, device=planes.low.device)
    groups = planes.shape[1] // GROUP
    block_groups = min(_BLOCK_GROUPS, triton.next_power_of_2(groups))
    dequantize_kernel[(triton.cdiv(rows, _BLOCK_ROWS), triton.cdiv(groups, block_groups))](
        plane_pointers(planes),
        ids,
        out,
        start,
        rows,
        groups,
        format=int(planes.type),
        block_rows=_BLOCK_ROWS,
        block_groups=block_groups,
    )
    return out


def dequantize(planes: Planes, rows: range, dtype: torch.dtype) -> torch.Tensor:
    """The rows `rows` (step 1) of a matrix, [rows, n] of any float type: the file's values, rounded once."""
    if planes.type in FLOATS:
        return planes.low[rows.start : rows.stop].to(dtype)
    return dequantize_rows(planes, None, rows.start, len(rows), dtype)
