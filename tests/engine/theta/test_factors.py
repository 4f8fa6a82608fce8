"""B = U diag(s) V^T, and the antisymmetric operator that it is a block of."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.errors import ModelFileError
from engine.theta import ThetaFactors


def phase_space_operator(factors: ThetaFactors) -> npt.NDArray[np.float32]:
    """Theta on the space "output plus input", (m + n, m + n): [[0, B], [-B^T, 0]]."""
    b = factors.matrix()
    m, n = b.shape
    return np.block([[np.zeros((m, m)), b], [-b.T, np.zeros((n, n))]]).astype(np.float32)


@st.composite
def some_factors(draw: st.DrawFn) -> ThetaFactors:
    m, n = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rank = draw(st.sampled_from([2, 4, 6, 8]))
    scales = st.floats(0, 1e3, width=32)
    return ThetaFactors(
        draw(arrays(np.int8, (m, rank))),
        draw(arrays(np.int8, (n, rank))),
        draw(arrays(np.float32, (rank,), elements=scales)),
    )


@given(some_factors())
def test_theta_is_antisymmetric(factors: ThetaFactors) -> None:
    theta = phase_space_operator(factors)
    assert np.array_equal(theta.T, -theta)


@given(some_factors())
def test_a_layer_applies_the_block_from_inputs_to_outputs(factors: ThetaFactors) -> None:
    m, n = len(factors.u), len(factors.v)
    x = np.arange(1, n + 1, dtype=np.float32)
    state = np.concatenate([np.zeros(m, np.float32), x])
    np.testing.assert_allclose((phase_space_operator(factors) @ state)[:m], factors.matrix() @ x, rtol=1e-4)


@given(some_factors())
def test_the_matrix_is_the_sum_of_its_components(factors: ThetaFactors) -> None:
    u, v = factors.u.astype(np.float64), factors.v.astype(np.float64)
    parts = [float(factors.scale[k]) * np.outer(u[:, k], v[:, k]) for k in range(factors.rank)]
    size = max(np.abs(parts).max(), 1e-30)
    assert factors.matrix().dtype == np.float32
    np.testing.assert_allclose(factors.matrix(), np.sum(parts, axis=0), atol=1e-5 * size)


def test_rows_go_through_v_first() -> None:
    """The sign trap: for row batches the term is (X V) diag(s) U^T."""
    rng = np.random.default_rng(0)
    u, v = rng.integers(-9, 9, (5, 2), np.int8), rng.integers(-9, 9, (7, 2), np.int8)
    factors = ThetaFactors(u, v, np.array([0.5, 2], np.float32))
    rows = rng.normal(size=(3, 7))
    np.testing.assert_allclose(rows @ factors.matrix().T, rows @ v * factors.scale @ u.T, rtol=1e-5)


@given(some_factors(), st.data())
def test_truncation_keeps_the_first_columns(factors: ThetaFactors, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, factors.rank))
    shorter = factors.truncated(rank)
    assert shorter.rank == rank
    shorter.check("x", factors.matrix().shape, rank)
    assert np.array_equal(shorter.u, factors.u[:, :rank])
    assert np.array_equal(shorter.v, factors.v[:, :rank])
    assert np.array_equal(shorter.scale, factors.scale[:rank])
    assert shorter.u.flags.c_contiguous


def fitting(**changes: Any) -> ThetaFactors:
    parts: dict[str, Any] = {
        "u": np.zeros((5, 2), np.int8),
        "v": np.zeros((7, 2), np.int8),
        "scale": np.ones(2, np.float32),
    }
    return ThetaFactors(**(parts | changes))


@pytest.mark.parametrize(
    ("factors", "shape", "rank", "fault"),
    [
        (fitting(), (5, 7, 1), 2, "no matrix"),
        (fitting(), (5,), 2, "no matrix"),
        (fitting(), (7, 5), 2, "would fit"),
        (fitting(), (5, 7), 4, "would fit"),
        (fitting(scale=np.ones((2, 1), np.float32)), (5, 7), 2, "would fit"),
        (fitting(u=np.zeros((5, 2), np.uint8)), (5, 7), 2, "must be I8"),
        (fitting(v=np.zeros((7, 2), np.float32)), (5, 7), 2, "must be I8"),
        (fitting(scale=np.ones(2)), (5, 7), 2, "must be I8"),
        (fitting(scale=np.array([1, np.nan], np.float32)), (5, 7), 2, "not finite"),
        (fitting(scale=np.array([1, -np.inf], np.float32)), (5, 7), 2, "not finite"),
        (fitting(scale=np.array([-3e36, 1], np.float32)), (5, 7), 2, "too large"),
    ],
)
def test_factors_that_do_not_fit(
    factors: ThetaFactors, shape: tuple[int, ...], rank: int, fault: str
) -> None:
    with pytest.raises(ModelFileError, match=fault):
        factors.check("x", shape, rank)


def test_factors_that_fit() -> None:
    fitting().check("x", (5, 7), 2)
