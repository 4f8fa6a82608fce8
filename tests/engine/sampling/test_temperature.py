import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.temperature import dynamic_temperature, smoothing, temperature
from engine.types import SamplingParams
from tests.engine.sampling import oracle
from tests.engine.sampling.rows import candidates_of

logit_lists = st.lists(st.floats(-12, 12, width=32), min_size=1, max_size=40)
quick = settings(max_examples=100, deadline=None)


def assert_same(found: Any, expected: oracle.Pairs) -> None:
    assert sorted(found.ids.tolist()) == sorted(token for token, _ in expected)
    assert found.logits.tolist() == pytest.approx([logit for _, logit in expected], rel=1e-4, abs=1e-4)


@quick
@given(logit_lists, st.floats(0.05, 5))
def test_temperature_divides(logits: list[float], t: float) -> None:
    pairs = oracle.falling(list(enumerate(logits)))
    assert_same(temperature(t)(candidates_of(logits)), oracle.heated(pairs, SamplingParams(temperature=t)))


@pytest.mark.parametrize("t", [0.0, -1.0, math.nan])
def test_no_temperature_keeps_the_likeliest(t: float) -> None:
    found = temperature(t)(candidates_of([1.0, 3.0, 2.0]))
    assert (found.ids.tolist(), found.logits.tolist()) == ([1], [3.0])


@pytest.mark.parametrize("t", [1e-6, 1e-30, 5e-324])
def test_a_tiny_temperature_is_as_good_as_none(t: float) -> None:
    # the two are neighbours among float32 numbers
    found = temperature(t)(candidates_of([2.0, float(np.nextafter(np.float32(2), np.float32(3))), -8.0]))
    assert np.isfinite(found.logits).all()
    if t <= 1e-8:
        assert found.probabilities()[0] > 0.999


@quick
@given(logit_lists, st.floats(0.1, 3), st.floats(-2, 2), st.floats(-1, 3))
def test_dynamic_temperature_follows_the_entropy(
    logits: list[float], t: float, spread: float, exponent: float
) -> None:
    params = SamplingParams(temperature=t, dynatemp_range=spread, dynatemp_exponent=exponent)
    pairs = oracle.falling(list(enumerate(logits)))
    found = dynamic_temperature(t, spread, exponent)(candidates_of(logits))
    low, high = max(0.0, t - spread), max(0.0, t + spread)
    if spread == 0 or min(low, high) < 0.01:
        # the oracle divides by what may be next to nothing
        assert found.logits.tolist() == sorted(found.logits.tolist(), reverse=True)
    else:
        assert_same(found, oracle.heated(pairs, params))


def test_certainty_can_cool_down_to_nothing() -> None:
    found = dynamic_temperature(0.5, 0.5, 1.0)(candidates_of([900.0, 0.0, 0.0]))
    assert found.ids.tolist() == [0]


@quick
@given(logit_lists, st.floats(0.01, 2), st.floats(-2, 6))
def test_smoothing_is_its_polynomial(logits: list[float], factor: float, curve: float) -> None:
    params = SamplingParams(smoothing_factor=factor, smoothing_curve=curve)
    pairs = oracle.falling(list(enumerate(logits)))
    assert_same(smoothing(factor, curve)(candidates_of(logits)), oracle.heated(pairs, params))


def test_a_curve_beyond_the_plain_ones_can_turn_the_order_round() -> None:
    found = smoothing(1.0, 0.0)(candidates_of([0.0, -1.0, -9.0]))
    assert found.ids.tolist() == [2, 0, 1]


@pytest.mark.parametrize(("factor", "curve"), [(1e308, 1.0), (1e308, -1e308), (1e30, 1e30), (1.0, 1e300)])
def test_extreme_smoothing_stays_finite(factor: float, curve: float) -> None:
    for logits in ([1e30, 0.0, -1e30], [3.0, 2.0], [0.0, 0.0]):
        found = smoothing(factor, curve)(candidates_of(logits))
        assert np.isfinite(found.logits).all()
        assert found.logits.tolist() == sorted(found.logits.tolist(), reverse=True)


def test_a_single_candidate_is_left_alone() -> None:
    for step in (smoothing(1.0, 2.0), dynamic_temperature(0.5, 0.2, 1.0)):
        assert step(candidates_of([2.5])).logits.tolist() == [2.5]
