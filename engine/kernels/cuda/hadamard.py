"""The rotation of heads by Hadamard matrices, in front of their quantisation and behind attention.

`engine.kv_cache.hadamard` defines it.
"""

import torch
import triton
import triton.language as tl

from engine.kv_cache import hadamard_size

_ELEMENTS = 2048
"""Of one program of `rotate_heads`: enough to keep loads in flight, few enough for registers."""


@triton.jit
def hadamard(x: tl.tensor, count: tl.constexpr, stages: tl.constexpr) -> tl.tensor:
    """Each run of 2^stages elements of x times a normalised Hadamard matrix: float32 [count].

    x: float32 of any shape with `count` elements, a power of two. One butterfly a stage.
    """
    for stage in tl.static_range(stages):
        pairs = tl.reshape(x, (count >> (stage + 1), 2, 1 << stage))
        one, other = tl.split(tl.permute(pairs, (0, 2, 1)))
        x = tl.permute(tl.join(one + other, one - other), (0, 2, 1))
    return tl.reshape(x, (count,)) * 2.0 ** (-0.5 * stages)


@triton.jit(do_not_specialize=["rows"])
def rotate_heads_kernel(
    x: tl.tensor,
    rows: tl.tensor,
    dim: tl.constexpr,
    stages: tl.constexpr,
    block_rows: tl.constexpr,
    block_dim: tl.constexpr,
) -> None:
    """Rotate rows [rows, dim] in place, `block_rows` a program."""
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    column = tl.arange(0, block_dim)
    places = row[:, None] * dim + column[None, :]
    valid = (row < rows)[:, None] & (column < dim)[None, :]
    tile = tl.load(x + places, mask=valid, other=0.0)
    rotated = hadamard(tile, block_rows * block_dim, stages)
    tl.store(x + places, tl.reshape(rotated, (block_rows, block_dim)), mask=valid)


def hadamard_stages(dim: int) -> int:
    """The butterflies of a head of `dim` elements: the logarithm of its blocks' size."""
    return hadamard_size(dim).bit_length() - 1


def rotate_constants(dim: int) -> dict[str, int]:
    """What `rotate_heads_kernel` is compiled for."""
    block_dim = triton.next_power_of_2(dim)
    return {
        "dim": dim,
        "stages": hadamard_stages(dim),
        "block_rows": max(1, _ELEMENTS // block_dim),
        "block_dim": block_dim,
    }


def rotate_heads(x: torch.Tensor) -> None:
    """Rotate the heads x [T, heads, dim], float32 and contiguous, in place."""
    rows, constants = x.numel() // x.shape[-1], rotate_constants(x.shape[-1])
    rotate_heads_kernel[(triton.cdiv(rows, constants["block_rows"]),)](x, rows, **constants, num_warps=4)
