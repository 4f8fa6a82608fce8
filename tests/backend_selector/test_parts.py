"""Sizes that are known without torch against those of the tensors themselves."""

import math

import numpy as np
import pytest
import torch

from backend_selector.facts import NOTHING, PartSizes
from backend_selector.parts import part_sizes, plane_bytes
from backend_selector.stage import cache_row_bytes
from engine.gguf import NATIVE_TYPES, GGMLType, TensorInfo
from engine.kv_cache import CacheFormat
from engine.theta import ThetaFactors


@pytest.mark.parametrize("ggml_type", sorted(NATIVE_TYPES), ids=lambda ggml_type: ggml_type.name)
def test_planes_are_as_large_as_the_kernels_make_them(ggml_type: GGMLType) -> None:
    from engine.kernels.cuda.planes import pack_planes

    rows, columns = 3, 512
    data = torch.zeros(rows, columns // ggml_type.block_size * ggml_type.type_size, dtype=torch.uint8)
    planes = pack_planes(data, ggml_type, (rows, columns))
    assert plane_bytes(ggml_type, rows * columns) == planes.nbytes


def test_types_without_planes_are_floats() -> None:
    assert plane_bytes(GGMLType.IQ2_XS, 512) == 4 * 512


@pytest.mark.parametrize("format", CacheFormat)
@pytest.mark.parametrize("dim", [2, 16, 32, 48, 80, 128, 576])
def test_rows_of_the_cache(format: CacheFormat, dim: int) -> None:
    assert cache_row_bytes(format.value, dim) == format.row_bytes(dim)


def tensor(name: str, ggml_type: GGMLType, *shape: int) -> TensorInfo:
    size = math.prod(shape) // ggml_type.block_size * ggml_type.type_size
    return TensorInfo(name, ggml_type, shape, size, 0)


def test_parts() -> None:
    theta = {
        "blk.1.ffn_up.weight": ThetaFactors(
            np.ones((32, 2), np.int8), np.ones((256, 2), np.int8), np.ones(2, np.float32)
        )
    }
    parts = part_sizes(
        [
            tensor("token_embd.weight", GGMLType.Q8_0, 10, 256),
            tensor("rope_freqs.weight", GGMLType.F32, 4),
            tensor("blk.0.attn_q.weight", GGMLType.Q4_K, 1, 256),
            tensor("blk.1.ffn_up.weight", GGMLType.Q4_0, 32, 256),
            tensor("blk.1.ffn_norm.weight", GGMLType.F32, 256),
            tensor("blk.7.ffn_norm.weight", GGMLType.F32, 256),
            tensor("output_norm.weight", GGMLType.F32, 256),
            tensor("output.weight", GGMLType.IQ2_XS, 1, 256),
        ],
        theta,
        2,
    )
    assert parts.embedding == PartSizes(10240, 2720, 2720, 16 + 1024)
    assert parts.blocks[0] == PartSizes(1024, 144, 148, 0)
    assert parts.blocks[1] == PartSizes(32768, 4608, 4608 + 4 * 64 + 512, 1024 + 4 * (64 + 512))
    assert parts.output == PartSizes(1024, 1024, 1024, 1024)
    assert parts.blocks[0] + parts.output - parts.output == parts.blocks[0]
    assert parts.output - parts.output == NOTHING
