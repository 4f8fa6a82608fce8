"""The best correction against QERA's closed form, taken literally."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.residual import best_correction

Matrix = npt.NDArray[np.float64]


def root(moment: Matrix, power: float) -> Matrix:
    values, vectors = np.linalg.eigh(moment)
    result: Matrix = (vectors * values**power) @ vectors.T
    return result


def closed_form(error: Matrix, moment: Matrix, rank: int) -> tuple[Matrix, float]:
    """The truncated SVD of E R^(1/2), brought back by R^(-1/2), and the loss that is left."""
    left, values, right = np.linalg.svd(error @ root(moment, 0.5), full_matrices=False)
    best: Matrix = (left[:, :rank] * values[:rank]) @ right[:rank] @ root(moment, -0.5)
    return best, float((values[rank:] ** 2).sum())


def loss(error: Matrix, correction: Matrix, moment: Matrix) -> float:
    rest = error - correction
    return float(np.trace(rest @ moment @ rest.T))


def found(error: Matrix, moment: Matrix, rank: int, seed: int = 0) -> Matrix:
    u, v = best_correction(torch.from_numpy(error), torch.from_numpy(moment), rank, seed)
    assert (u.dtype, v.dtype) == (torch.float64, torch.float64)
    assert (u.shape, v.shape) == ((len(error), rank), (error.shape[1], rank))
    result: Matrix = (u @ v.T).numpy()
    return result


def problem(rows: int, columns: int, seed: int, spread: float) -> tuple[Matrix, Matrix]:
    """E, and a positive definite R whose directions differ by up to `spread` orders of magnitude."""
    rng = np.random.default_rng(seed)
    scales = 10 ** rng.uniform(-spread, 0, columns)
    inputs = rng.normal(size=(3 * columns + 3, columns)) * scales
    turned = inputs @ np.linalg.qr(rng.normal(size=(columns, columns)))[0]
    return rng.normal(0, 1e-3, (rows, columns)), turned.T @ turned / len(turned)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 48),
    columns=st.integers(1, 40),
    rank=st.sampled_from([2, 4, 6, 8]),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 1.0, 2.0]),
)
def test_nothing_of_its_rank_is_better(rows: int, columns: int, rank: int, seed: int, spread: float) -> None:
    error, moment = problem(rows, columns, seed, spread)
    best, optimum = closed_form(error, moment, rank)
    noise = 1e-12 * loss(error, np.zeros_like(error), moment)
    assert loss(error, best, moment) == pytest.approx(optimum, rel=1e-6, abs=noise)
    assert loss(error, found(error, moment, rank), moment) == pytest.approx(optimum, rel=1e-6, abs=noise)


@pytest.mark.parametrize("shape", [(200, 24), (24, 200)])
def test_it_is_the_closed_form_where_the_strongest_stand_apart(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    _, moment = problem(*shape, seed=3, spread=1.0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 24)))[0] for size in shape)
    error = (left * 0.5 ** np.arange(24)) @ right.T
    best, _ = closed_form(error, moment, 4)
    np.testing.assert_allclose(found(error, moment, 4), best, atol=1e-6 * np.abs(best).max())


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (1, 1)])
def test_a_rank_beyond_the_matrix_gives_the_error_back(shape: tuple[int, int]) -> None:
    error, moment = problem(*shape, seed=1, spread=1.0)
    np.testing.assert_allclose(found(error, moment, 8), error, atol=1e-12)


def test_no_error_needs_no_correction() -> None:
    _, moment = problem(20, 10, seed=1, spread=1.0)
    assert not found(np.zeros((20, 10)), moment, 4).any()


def test_inputs_of_one_direction_are_corrected_exactly() -> None:
    """R of rank one has no inverse, and needs none."""
    rng = np.random.default_rng(0)
    x, error = rng.normal(size=10), rng.normal(size=(20, 10))
    np.testing.assert_allclose(found(error, np.outer(x, x), 2) @ x, error @ x, atol=1e-9)


def test_the_seed_decides_and_nothing_else() -> None:
    error, moment = problem(30, 20, seed=5, spread=1.0)
    assert np.array_equal(found(error, moment, 4, seed=7), found(error, moment, 4, seed=7))
