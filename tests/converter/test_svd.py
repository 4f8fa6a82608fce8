"""The guide's theta: antisymmetric on the leading block, zero beyond."""

import numpy as np
import pytest

from converter.int8 import to_int8
from converter.svd import svd_theta


@pytest.mark.parametrize("shape", [(12, 12), (12, 20), (20, 12)])
@pytest.mark.parametrize("rank", [2, 4, 6, 8])
@pytest.mark.parametrize("target_size", [8, 12, 512])
def test_the_block_is_antisymmetric(shape: tuple[int, int], rank: int, target_size: int) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    u, v = svd_theta(weight, rank, target_size)
    assert (u.shape, v.shape) == ((shape[0], rank), (shape[1], rank))
    b = u @ v.T
    size = min(target_size, 12)
    np.testing.assert_allclose(b[:size, :size], -b[:size, :size].T, atol=1e-12)
    assert np.abs(b).max() > 0.1
    assert not b[size:].any()
    assert not b[:, size:].any()


def test_it_is_what_the_guide_says_where_the_rank_suffices() -> None:
    """A block of rank 2 minus its transpose has rank 4."""
    rng = np.random.default_rng(1)
    block = (rng.normal(size=(10, 2)) @ rng.normal(size=(2, 10))).astype(np.float32)
    u, v = svd_theta(block, 4, 512)
    np.testing.assert_allclose(u @ v.T, block - block.T, atol=1e-5)


def test_a_block_smaller_than_the_rank() -> None:
    u, v = svd_theta(np.array([[1, 2], [3, 4]], np.float32), 8, 512)
    np.testing.assert_allclose(u @ v.T, [[0, -1], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(to_int8(u, v).matrix(), [[0, -1], [1, 0]], atol=1e-6)
