"""Matrices of random numbers in the blocks of a ggml type, made where they are wanted."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch

from engine.gguf import GGMLType, dequantize

DEVIATION = 0.02
"""Of the weights, about that of a trained model's."""

_SCALE_PLACES: Mapping[GGMLType, Mapping[int, float]] = {
    GGMLType.Q4_1: {0: 1.0, 2: -7.5},
    GGMLType.Q5_1: {0: 1.0, 2: -15.5},
    GGMLType.Q2_K: {80: 1.0, 82: 1.5},
    GGMLType.Q3_K: {108: 1.0},
    GGMLType.Q4_K: {0: 1.0, 2: 7.5},
    GGMLType.Q5_K: {0: 1.0, 2: 15.5},
    GGMLType.Q6_K: {208: 1.0},
}
"""Bytes of a block where its float16 scales lie, if not in the first two alone (ggml's block structs).

The second number is the scale's ratio to the first: minimums that bring the weights' mean to 0.
"""
_FLOAT_DTYPES = {
    GGMLType.F32: torch.float32,
    GGMLType.F16: torch.float16,
    GGMLType.BF16: torch.bfloat16,
}
_SPREAD = 0.5
"""Scales are uniform within 1 - _SPREAD and 1 + _SPREAD of their mean."""
_PROBED_BLOCKS = 4096


def random_blocks(kind: GGMLType, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """The bytes of a matrix (m, n) of mean about 0 and deviation `DEVIATION`: uint8 [m, bytes of a row].

    Made on the generator's device. `kind`: a type that stays packed; n is a multiple of its block.
    """
    m, n = shape
    device = generator.device
    if kind in _FLOAT_DTYPES:
        values = torch.randn(m, n, generator=generator, device=device) * DEVIATION
        return values.to(_FLOAT_DTYPES[kind]).view(torch.uint8)
    size = m, n // kind.block_size, kind.type_size
    blocks = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator, device=device)
    factor = (
        torch.rand(*size[:2], 1, generator=generator, device=device).mul_(2).sub_(1).mul_(_SPREAD).add_(1)
    )
    _set_scales(blocks, kind, factor * _scale(kind))
    return blocks.flatten(1)


def _set_scales(blocks: torch.Tensor, kind: GGMLType, scales: torch.Tensor) -> None:
    """Write float32 scales [m, blocks, 1], times their ratios, into blocks [m, blocks, bytes]."""
    for place, ratio in _SCALE_PLACES.get(kind, {0: 1.0}).items():
        blocks[..., place : place + 2] = (scales * ratio).half().view(torch.uint8)


@cache
def _scale(kind: GGMLType) -> float:
    """The mean scale that gives the weights their deviation, from some blocks on the processor."""
    generator = torch.Generator().manual_seed(0)
    size = 1, _PROBED_BLOCKS, kind.type_size
    blocks = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    _set_scales(blocks, kind, torch.ones(*size[:2], 1))
    shape = 1, _PROBED_BLOCKS * kind.block_size
    deviation = float(np.std(dequantize(blocks.flatten().numpy(), kind, shape), dtype=np.float64))
    # The mean square of the factors is 1 + _SPREAD^2 / 3.
    return float(DEVIATION / deviation / (1 + _SPREAD**2 / 3) ** 0.5)
