"""What rounding to INT8 keeps of a correction."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.int8 import _fit, to_int8
from engine.errors import ConfigError
from engine.theta import ThetaFactors

Array = npt.NDArray[Any]


def loss(difference: Array, metric: Array | None) -> float:
    """Root of the mean square of difference @ x over inputs x with E[x x^T] = metric."""
    weighted = difference if metric is None else difference @ metric
    return float(np.sqrt(max((weighted * difference).sum(), 0)))


def random_metric(rng: np.random.Generator, n: int, samples: int) -> Array:
    inputs = rng.normal(size=(samples, n)) * np.geomspace(0.3, 3, n)
    return inputs.T @ inputs / samples


def best(b: Array, rank: int, metric: Array | None) -> float:
    """The least loss that any correction of that rank leaves (Eckart-Young, in the metric)."""
    if metric is not None:
        values, vectors = np.linalg.eigh(metric)
        b = b @ (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return float(np.sqrt((np.linalg.svd(b, compute_uv=False)[rank:] ** 2).sum()))


def check_form(factors: ThetaFactors, m: int, n: int, rank: int) -> None:
    factors.check("x", (m, n), rank)
    assert min(factors.u.min(), factors.v.min()) >= -127
    assert (factors.scale >= 0).all()
    assert (factors.v.max(axis=0) >= -factors.v.min(axis=0)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([2, 4, 6, 8]),
    st.sampled_from([None, 5, 200]),
    st.sampled_from([1e-12, 1.0, 1e12]),
)
def test_the_loss_is_small_and_each_prefix_the_best(
    seed: int, m: int, n: int, rank: int, samples: int | None, size: float
) -> None:
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=(m, rank)) * np.geomspace(1, 0.1, rank) * size, rng.normal(size=(n, rank))
    metric = None if samples is None else random_metric(rng, n, samples)
    b = u @ v.T
    factors = to_int8(u, v, metric=metric)
    check_form(factors, m, n, rank)
    # Five inputs leave most directions without weight: what counts may be small beside the steps of 8 bits.
    room = (0.06 if samples == 5 else 0.02) * loss(b, metric)
    for kept in range(1, rank + 1):
        left = loss(b - factors.truncated(kept).matrix().astype(float), metric)
        assert left <= best(b, kept, metric) + room


def test_columns_are_ordered_by_the_energy_that_they_carry() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(30, 6)), rng.normal(size=(50, 6))
    for metric in (None, random_metric(rng, 50, 200)):
        factors = to_int8(u, v, metric=metric)
        energy = [
            loss(np.outer(factors.u[:, k].astype(float) * factors.scale[k], factors.v[:, k]), metric)
            for k in range(6)
        ]
        assert energy == sorted(energy, reverse=True)


def test_the_metric_is_what_it_optimises() -> None:
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=(30, 4)), rng.normal(size=(50, 4))
    metric = random_metric(rng, 50, 200)
    b = u @ v.T
    with_metric = to_int8(u, v, metric=metric).truncated(2).matrix()
    without = to_int8(u, v).truncated(2).matrix()
    assert loss(b - with_metric, metric) < loss(b - without, metric)
    assert loss(b - without, None) < loss(b - with_metric, None)


def test_a_float32_metric_does_as_well() -> None:
    rng = np.random.default_rng(2)
    u, v = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(50, 4)).astype(np.float32)
    metric = random_metric(rng, 50, 20)
    b = u.astype(float) @ v.T.astype(float)
    left = loss(b - to_int8(u, v, metric=metric.astype(np.float32)).matrix(), metric)
    assert left <= 0.02 * loss(b, metric)


@pytest.mark.parametrize("given_metric", [False, True])
def test_no_other_u_fits_the_rounded_v_better(given_metric: bool) -> None:
    """The least-squares solution leaves nothing that is not orthogonal, in the metric, to V."""
    rng = np.random.default_rng(3)
    u, v = rng.normal(size=(20, 4)), rng.normal(size=(30, 4))
    metric = random_metric(rng, 30, 100) if given_metric else None
    rounded = np.rint(v * 20)
    rest = u @ v.T - _fit(u, v, rounded, metric) @ rounded.T
    weighted = rounded if metric is None else metric @ rounded
    np.testing.assert_allclose(rest @ weighted, 0, atol=1e-9)


@pytest.mark.parametrize("given_metric", [False, True])
def test_v_is_rounded_to_the_nearest_and_u_fitted_to_what_is_left_of_it(given_metric: bool) -> None:
    """Step by step, by other ways: singular vectors, their rounding, least squares, its rounding."""
    rng = np.random.default_rng(8)
    u, v = rng.normal(size=(25, 4)), rng.normal(size=(30, 4)) * (4, 3, 2, 1)
    metric = random_metric(rng, 30, 100) if given_metric else np.eye(30)
    b, root = u @ v.T, np.linalg.cholesky(metric)
    factors = to_int8(u, v, metric=metric if given_metric else None)

    def nearest(columns: Array, scale: Array) -> Array:
        return np.floor(columns / scale + 0.5)

    right = b.T @ np.linalg.svd(b @ root)[0][:, :4]
    right *= np.sign(np.take_along_axis(right, np.abs(right).argmax(axis=0)[None], axis=0))
    np.testing.assert_array_equal(factors.v, nearest(right, right.max(axis=0) / 127))
    # the rounded V, not the exact one, is what U has to go with
    kept = root.T @ factors.v.astype(float)
    fitted = np.linalg.lstsq(kept, root.T @ b.T, rcond=None)[0].T
    scale = np.abs(fitted).max(axis=0) / 127
    np.testing.assert_allclose(factors.scale, scale, rtol=1e-6)
    np.testing.assert_array_equal(factors.u, nearest(fitted, scale))


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("independent", [0, 1, 2])
def test_components_that_carry_nothing_are_zero(independent: int, metric: bool) -> None:
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(independent, 4))
    u, v = rng.normal(size=(20, independent)) @ mix, rng.normal(size=(30, 4))
    r = random_metric(rng, 30, 100) if metric else None
    factors = to_int8(u, v, metric=r)
    assert np.count_nonzero(factors.scale) == independent
    assert not factors.u[:, independent:].any()
    assert not factors.v[:, independent:].any()
    assert loss(u @ v.T - factors.matrix(), r) <= 0.02 * loss(u @ v.T, r)


def test_a_matrix_thinner_than_the_rank_leaves_columns_empty() -> None:
    rng = np.random.default_rng(5)
    u, v = rng.normal(size=(3, 8)), rng.normal(size=(40, 8))
    factors = to_int8(u, v)
    check_form(factors, 3, 40, 8)
    assert np.count_nonzero(factors.scale) == 3
    assert loss(u @ v.T - factors.matrix(), None) <= 0.02 * loss(u @ v.T, None)


def test_an_untrained_theta_is_zero() -> None:
    factors = to_int8(np.zeros((5, 4), np.float32), np.ones((6, 4), np.float32))
    assert not factors.scale.any()
    assert not factors.matrix().any()


def test_sign_and_basis_of_the_input_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    u, v = rng.normal(size=(20, 4)), rng.normal(size=(30, 4))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    one, other = to_int8(u, v), to_int8(-u @ turn, -v @ turn)
    # the rounding of a tie may fall either way
    assert np.abs(one.u.astype(int) - other.u).max() <= 1
    assert np.abs(one.v.astype(int) - other.v).max() <= 1
    np.testing.assert_allclose(one.scale, other.scale, rtol=1e-3)


def test_the_same_input_gives_the_same_bytes() -> None:
    rng = np.random.default_rng(7)
    u, v = rng.normal(size=(20, 4)), rng.normal(size=(30, 4))
    one, other = to_int8(u, v), to_int8(u.copy(), v.copy())
    assert (one.u.tobytes(), one.v.tobytes()) == (other.u.tobytes(), other.v.tobytes())
    assert one.scale.tobytes() == other.scale.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["u", "v", "metric"])
def test_values_that_are_not_finite_are_refused(value: float, where: str) -> None:
    arrays = {"u": np.ones((3, 2)), "v": np.ones((4, 2)), "metric": np.eye(4)}
    arrays[where][1, 1] = value
    with pytest.raises(ConfigError, match="not finite"):
        to_int8(arrays["u"], arrays["v"], metric=arrays["metric"])


def test_values_beyond_float32_are_refused() -> None:
    with pytest.raises(ConfigError, match="too large"):
        to_int8(np.full((3, 2), 1e60), np.full((4, 2), 1e60))
