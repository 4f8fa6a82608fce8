"""Each truncation against its definition, over random logits, and where its limits lie."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.truncation import (
    Step,
    min_p,
    min_p_distance,
    nsigma,
    tail_free,
    top_a,
    top_k,
    top_p,
    typical,
)
from engine.types import Sampler, SamplingParams
from tests.engine.sampling import oracle
from tests.engine.sampling.rows import candidates_of

# Quarters are exact in float32, and their sums of probabilities keep away from the limits below.
logit_lists = st.lists(st.integers(-40, 40).map(lambda n: n / 4), min_size=1, max_size=30, unique=True)
CASES: list[tuple[Step, Sampler, dict[str, Any]]] = [
    *((top_k(k), Sampler.TOP_K, {"top_k": k}) for k in (1, 7, 100)),
    *((top_p(p), Sampler.TOP_P, {"top_p": p}) for p in (-1.0, 0.0, 0.31, 0.9123, 0.99917)),
    *((min_p(p), Sampler.TOP_P, {"min_p": p}) for p in (0.0107, 0.2, 0.999)),
    *((top_a(a), Sampler.TOP_A, {"top_a": a}) for a in (0.0203, 0.4007, 3.0)),
    *((tail_free(z), Sampler.TFS, {"tfs": z}) for z in (-1.0, 0.0513, 0.6011, 0.9507)),
    *((typical(m), Sampler.TYPICAL, {"typical": m}) for m in (0.0, 0.0507, 0.4021, 0.9511)),
    *((nsigma(n), Sampler.TEMPERATURE, {"nsigma": n}) for n in (0.113, 1.0107, 2.0107)),
]


@pytest.mark.parametrize(("step", "name", "fields"), CASES)
@settings(max_examples=60, deadline=None)
@given(logit_lists)
def test_definition(step: Step, name: Sampler, fields: dict[str, Any], logits: list[float]) -> None:
    params = SamplingParams(**fields)
    found = step(candidates_of(logits))
    pairs = oracle.falling(list(enumerate(logits)))
    if name is Sampler.TEMPERATURE:
        expected = oracle.heated(pairs, params)
    else:
        expected = oracle.truncated(name, pairs, params)
    assert found.ids.tolist() == [token for token, _ in expected]
    assert found.logits.tolist() == [logit for _, logit in expected]


def test_top_p_just_over_the_sum_keeps_everything() -> None:
    assert len(top_p(1 + 1e-9)(candidates_of([0.0] * 7)).ids) == 7


FLAT = [0.0] * 4
"""Probabilities of exactly a quarter."""
OVER, UNDER = 1 + 1e-9, 1 - 1e-9
LN_4 = float(min_p_distance(0.25))
LIMITS: list[tuple[str, Callable[[float], Step], float, list[float], tuple[int, int, int]]] = [
    # the one that reaches the sum is the last
    ("top_p", top_p, 0.5, FLAT, (2, 2, 3)),
    # the one that exceeds it is the last
    ("typical", typical, 0.5, FLAT, (2, 3, 3)),
    # the one that exceeds it is the first to go: four shares of a quarter
    ("tail_free", tail_free, 0.5, [0.0] * 6, (1, 2, 2)),
    # who just meets the limit stays
    ("top_a", top_a, 4.0, FLAT, (4, 4, 1)),
    ("nsigma", nsigma, 2.0, [1.0, -1.0], (1, 2, 2)),
]


@pytest.mark.parametrize(
    ("make", "limit", "logits", "kept"), [case[1:] for case in LIMITS], ids=[case[0] for case in LIMITS]
)
def test_exactly_at_the_limit(
    make: Callable[[float], Step], limit: float, logits: list[float], kept: tuple[int, int, int]
) -> None:
    found = [len(make(limit * near)(candidates_of(logits)).ids) for near in (UNDER, 1, OVER)]
    assert found == list(kept)


def test_exactly_at_the_distance_of_min_p() -> None:
    least = np.float32(3) - np.float32(LN_4)
    below = np.nextafter(least, np.float32(-9))
    assert len(min_p(0.25)(candidates_of([3.0, least, below])).ids) == 2
    assert len(min_p(1.0)(candidates_of([3.0, 3.0, np.nextafter(np.float32(3), np.float32(0))])).ids) == 2


@pytest.mark.parametrize("step", [case[0] for case in CASES])
@pytest.mark.parametrize("logits", [[0.0], [0.0, 0.0], [0.0] * 50, [1e30, 0.0, -1e30], [-1e30] * 3])
def test_extreme_rows_leave_at_least_one(step: Step, logits: list[float]) -> None:
    found = step(candidates_of(logits))
    assert 1 <= len(found.ids) <= len(logits)
    assert np.isfinite(found.logits).all()


def test_typical_may_drop_the_likeliest_and_stays_sorted() -> None:
    found = typical(0.3)(candidates_of([3.0, 2.0, 1.9, 1.8, 1.7, 1.6]))
    assert 0 not in found.ids.tolist()
    assert found.logits.tolist() == sorted(found.logits.tolist(), reverse=True)
