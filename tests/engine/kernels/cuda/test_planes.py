"""Repacked matrices are the file's, bit for bit; the oracle is the reference package."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.gguf import NATIVE_TYPES, GGMLType
from engine.kernels.cuda import planes
from engine.kernels.cuda.planes import pack_planes
from tests.support.gguf_files import random_blocks, random_tensor

TYPES = sorted(NATIVE_TYPES)
MINIMUMS = (GGMLType.Q4_1, GGMLType.Q5_1)


def packed(kind: GGMLType, shape: tuple[int, int], seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Random bytes of a matrix and its values."""
    rng = np.random.default_rng(seed)
    # Bytes at random make minimums of no number.
    by_value = kind in MINIMUMS
    made = random_tensor(rng, kind.name, shape).data if by_value else random_blocks(rng, kind.name, shape)
    data = np.ascontiguousarray(made).view(np.uint8).reshape(shape[0], -1)
    return torch.from_numpy(data), dequantize(data, GGMLQuantizationType(kind)).reshape(shape)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 5), blocks=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_values_are_those_of_the_file(kind: GGMLType, m: int, blocks: int, seed: int) -> None:
    data, values = packed(kind, (m, blocks * max(kind.block_size, 32)), seed)
    found = pack_planes(data, kind, values.shape).dequantize()
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), values)


def test_slabs_make_the_same_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    data, values = packed(GGMLType.Q6_K, (7, 512), 1)
    monkeypatch.setattr(planes, "_SLAB_WEIGHTS", 2 * 512)
    np.testing.assert_array_equal(pack_planes(data, GGMLType.Q6_K, (7, 512)).dequantize().numpy(), values)


BITS = {
    "F32": 32, "F16": 16, "BF16": 16, "Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5, "Q2_K":
    2.625, "Q3_K": 3.5625, "Q4_K": 4.625, "Q5_K": 5.625, "Q6_K": 6.5625, "IQ4_NL": 4.5, "IQ4_XS": 4.3125,
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_memory_per_weight(kind: GGMLType) -> None:
    data, _ = packed(kind, (3, 512), 0)
    assert pack_planes(data, kind, (3, 512)).nbytes * 8 == BITS[kind.name] * 3 * 512


def test_words_are_where_the_kernels_look() -> None:
    """The layout itself: dequantising alone would hide a mistake that it shares with packing."""
    q = np.arange(32) % 16
    data = np.zeros((1, 18), np.uint8)
    data[0, 2:] = q[:16] | q[16:] << 4
    low = pack_planes(torch.from_numpy(data), GGMLType.Q4_0, (1, 32)).low[0, 0].numpy().view(np.uint8)
    np.testing.assert_array_equal(low, q[:16] | q[16:] << 4)
    looked_up = pack_planes(torch.from_numpy(data), GGMLType.IQ4_NL, (1, 32)).low[0, 0]
    for word in range(4):
        nibbles = [int(looked_up[word]) >> 4 * place & 15 for place in range(8)]
        assert nibbles == [*q[4 * word : 4 * word + 4], *q[16 + 4 * word : 20 + 4 * word]]


def test_bytes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no matrix of 2 x 64 in Q4_0"):
        pack_planes(torch.zeros(2, 35, dtype=torch.uint8), GGMLType.Q4_0, (2, 64))
    with pytest.raises(ValueError, match="no matrix of 2 x 48 in Q4_0"):
        pack_planes(torch.zeros(2, 27, dtype=torch.uint8), GGMLType.Q4_0, (2, 48))
    with pytest.raises(ValueError, match="IQ2_XS has no planes"):
        pack_planes(torch.zeros(1, 74, dtype=torch.uint8), GGMLType.IQ2_XS, (1, 256))
