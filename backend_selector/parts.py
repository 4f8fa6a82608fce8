"""How large the parts of a model are in each form that kernels keep them in. Pure.

The bytes of planes are those of `engine.kernels.cuda.planes`, which
needs torch; the tests hold them together.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backend_selector.facts import NOTHING, PartSizes
from engine.gguf import GGMLType, TensorInfo
from engine.theta import ThetaFactors

_FLOAT32 = 4
_SUPER_BLOCK = 256
"""Weights that share the outer scales of the K types."""
_PLANE_BYTES = {GGMLType.Q3_K: 114, GGMLType.Q4_K: 148, GGMLType.Q5_K: 180, GGMLType.IQ4_XS: 138}
"""Of a super-block, where they are more than in the file: scales of 6 bits become bytes."""
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Parts:
    """A model taken apart at the places where it may be split."""

    embedding: PartSizes
    blocks: tuple[PartSizes, ...]
    output: PartSizes


def part_sizes(tensors: Iterable[TensorInfo], theta: Mapping[str, ThetaFactors], layers: int) -> Parts:
    """The sizes of a model of so many blocks, by parts: its tensors, each with theta's factors for it."""
    blocks = [NOTHING] * layers
    embedding = output = NOTHING
    for info in tensors:
        size = _tensor_sizes(info, theta.get(info.name))
        block = _BLOCK.match(info.name)
        if block is not None and int(block[1]) < layers:
            blocks[int(block[1])] += size
        elif info.name.startswith("output"):
            output += size
        else:
            embedding += size
    return Parts(embedding, tuple(blocks), output)


def _tensor_sizes(info: TensorInfo, factors: ThetaFactors | None) -> PartSizes:
    dense = info.n_elements * _FLOAT32
    if len(info.shape) == 1:
        return PartSizes(0, 0, 0, dense)
    size = PartSizes(
        dense,
        info.n_bytes if info.type.packed_natively else dense,
        plane_bytes(info.type, info.n_elements),
        0,
    )
    if factors is None:
        return size
    u, v = factors.u.size, factors.v.size
    # The Triton kernels have a copy of their own: u as floats, v as the integers of the file.
    return size + PartSizes(0, 0, u * _FLOAT32 + v, (u + v) * _FLOAT32)


def plane_bytes(ggml_type: GGMLType, elements: int) -> int:
    """Bytes of a matrix of so many elements on a card, for the Triton kernels; whole blocks of the type."""
    if not ggml_type.packed_natively:
        return elements * _FLOAT32
    if ggml_type in _PLANE_BYTES:
        return elements // _SUPER_BLOCK * _PLANE_BYTES[ggml_type]
    return elements // ggml_type.block_size * ggml_type.type_size
