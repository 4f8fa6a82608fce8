"""The gate of a feed-forward layer for many rows, between its matrices."""

import torch
import triton
import triton.language as tl

_BLOCK = 1024
"""Elements of a program."""


@triton.jit
def silu_mul_kernel(
    gate: tl.tensor, up: tl.tensor, out: tl.tensor, count: tl.tensor, block: tl.constexpr
) -> None:
    """out = gate / (1 + e^-gate) * up, `block` elements a program."""
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    valid = place < count
    g = tl.load(gate + place, mask=valid, other=0.0).to(tl.float32)
    u = tl.load(up + place, mask=valid, other=0.0).to(tl.float32)
    tl.store(out + place, (g / (1.0 + tl.exp(-g)) * u).to(out.dtype.element_ty), mask=valid)


def silu_mul(gate: torch.Tensor, up: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """silu(gate) * up, computed in float32: both of one shape and contiguous, the result of `dtype`."""
    out = torch.empty_like(gate, dtype=dtype)
    count = gate.numel()
    silu_mul_kernel[(triton.cdiv(count, _BLOCK),)](gate, up, out, count, _BLOCK, num_warps=4)
    return out
