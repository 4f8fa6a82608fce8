"""The blocks of the file taken apart: integers, their scales, and nothing rounded. Torch alone, any device.

Source of the layouts: the block structs of ggml (llama.cpp, MIT), as the package gguf documents them in
numpy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.gguf import GGMLType
from engine.kernels.cuda.formats import GROUP


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Some rows of a matrix. `integers` uint8 [m, groups, 32]: q with its offset, or places in a codebook.

    `halves` float16 [m, blocks, 1 or 2]: d, and the minimum or dmin if the type has one. `bytes`, of types
    with two levels, int8 or uint8 [m, groups, 1 or 2]: small scales and minimums.
    """

    integers: torch.Tensor
    halves: torch.Tensor
    bytes: torch.Tensor | None = None


def read_blocks(data: torch.Tensor, ggml_type: GGMLType) -> Blocks:
    """Take rows apart: `data` uint8 [m, bytes of a row], of a type of integers that stays packed."""
    blocks = data.contiguous().view(len(data), -1, ggml_type.type_size)
    return _READERS[ggml_type](blocks)


def _halves(blocks: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Bytes start to stop of each block as float16."""
    return blocks[..., start:stop].contiguous().view(torch.float16)


def _groups(integers: torch.Tensor) -> torch.Tensor:
    """[m, blocks, ...] in the order of the weights to [m, groups, 32]."""
    return integers.reshape(len(integers), -1, GROUP)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Lower nibbles, then upper ones: uint8 [..., k] to [..., 2 k]."""
    return torch.cat((packed & 15, packed >> 4), -1)


def _shifted(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """All fields of `bits` bits, the lowest of every byte first: uint8 [..., k] to [..., 8 / bits, k]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)[:, None]
    return packed.unsqueeze(-2) >> shifts & (1 << bits) - 1


def _read_q4(heads: int) -> Callable[[torch.Tensor], Blocks]:
    """Q4_0, IQ4_NL with one float16 in front, Q4_1 with two."""

    def read(blocks: torch.Tensor) -> Blocks:
        return Blocks(_groups(_nibbles(blocks[..., 2 * heads :])), _halves(blocks, 0, 2 * heads))

    return read


def _read_q5(heads: int) -> Callable[[torch.Tensor], Blocks]:
    """Q5_0, Q5_1: the fifth bits of all 32 weights, then nibbles."""

    def read(blocks: torch.Tensor) -> Blocks:
        at = 2 * heads
        fifth = _shifted(blocks[..., at : at + 4], 1).transpose(-2, -1).flatten(-2)
        return Blocks(_groups(_nibbles(blocks[..., at + 4 :]) | fifth << 4), _halves(blocks, 0, at))

    return read


def _read_q8_0(blocks: torch.Tensor) -> Blocks:
    return Blocks(_groups(blocks[..., 2:]), _halves(blocks, 0, 2))


def _read_q2_k(blocks: torch.Tensor) -> Blocks:
    q = _shifted(torch.unflatten(blocks[..., 16:80], -1, (2, 32)), 2)
    return Blocks(_groups(q), _halves(blocks, 80, 84), _pairs(blocks[..., :16]))


def _read_q3_k(blocks: torch.Tensor) -> Blocks:
    low = _shifted(torch.unflatten(blocks[..., 32:96], -1, (2, 32)), 2).flatten(-3, -2)
    high = _shifted(blocks[..., :32], 1)
    scales = _nibbles(blocks[..., 96:104]) | _shifted(blocks[..., 104:108], 2).flatten(-2) << 4
    return Blocks(_groups(low | high << 2), _halves(blocks, 108, 110), _pairs(scales.view(torch.int8) - 32))


def _read_q4_k(blocks: torch.Tensor) -> Blocks:
    q = _shifted(torch.unflatten(blocks[..., 16:], -1, (4, 32)), 4)
    return Blocks(_groups(q), _halves(blocks, 0, 4), _scales_and_minimums(blocks[..., 4:16]))


def _read_q5_k(blocks: torch.Tensor) -> Blocks:
    low = _shifted(torch.unflatten(blocks[..., 48:], -1, (4, 32)), 4).flatten(-3, -2)
    fifth = _shifted(blocks[..., 16:48], 1)
    return Blocks(_groups(low | fifth << 4), _halves(blocks, 0, 4), _scales_and_minimums(blocks[..., 4:16]))


def _read_q6_k(blocks: torch.Tensor) -> Blocks:
    low = _shifted(torch.unflatten(blocks[..., :128], -1, (2, 64)), 4).flatten(-3)
    high = _shifted(torch.unflatten(blocks[..., 128:192], -1, (2, 32)), 2).flatten(-3)
    scales = blocks[..., 192:208].view(torch.int8)
    return Blocks(_groups(low | high << 4), _halves(blocks, 208, 210), _pairs(scales))


def _read_iq4_xs(blocks: torch.Tensor) -> Blocks:
    places = _nibbles(torch.unflatten(blocks[..., 8:], -1, (8, 16)))
    low = _shifted(blocks[..., 4:8], 4).transpose(-2, -1).flatten(-2)
    high = _shifted(blocks[..., 2:4], 2).transpose(-2, -1).flatten(-2)
    scales = (low | high << 4).view(torch.int8) - 32
    return Blocks(_groups(places), _halves(blocks, 0, 2), scales.reshape(len(blocks), -1, 1))


def _pairs(scales: torch.Tensor) -> torch.Tensor:
    """A byte for each 16 weights: [m, blocks, 16] to [m, groups, 2]."""
    return scales.reshape(len(scales), -1, 2)


def _scales_and_minimums(packed: torch.Tensor) -> torch.Tensor:
    """The 6-bit scales and minimums of Q4_K and Q5_K: uint8 [m, blocks, 12] to [m, groups, 2]."""
    first, second, third = torch.unflatten(packed, -1, (3, 4)).unbind(-2)
    scales = torch.cat((first & 63, third & 15 | (first >> 2) & 48), -1)
    minimums = torch.cat((second & 63, third >> 4 | (second >> 2) & 48), -1)
    return torch.stack((scales, minimums), -1).reshape(len(packed), -1, 2)


_READERS: dict[GGMLType, Callable[[torch.Tensor], Blocks]] = {
    GGMLType.Q4_0: _read_q4(1),
    GGMLType.Q4_1: _read_q4(2),
    GGMLType.Q5_0: _read_q5(1),
    GGMLType.Q5_1: _read_q5(2),
    GGMLType.Q8_0: _read_q8_0,
    GGMLType.Q2_K: _read_q2_k,
    GGMLType.Q3_K: _read_q3_k,
    GGMLType.Q4_K: _read_q4_k,
    GGMLType.Q5_K: _read_q5_k,
    GGMLType.Q6_K: _read_q6_k,
    GGMLType.IQ4_NL: _read_q4(1),
    GGMLType.IQ4_XS: _read_iq4_xs,
}
