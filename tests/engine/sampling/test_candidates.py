import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.candidates import BOUND, Candidates, bounded
from tests.engine.sampling.rows import candidates_of

LIMIT = float(np.float32(BOUND))
finite = st.floats(-LIMIT, LIMIT, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40])


@given(st.lists(finite, min_size=1, max_size=50))
def test_ranked_falls_and_equal_ones_keep_the_order_of_their_ids(logits: list[float]) -> None:
    found = candidates_of(logits)
    expected = sorted(range(len(logits)), key=lambda i: (-np.float32(logits[i]), i))
    assert found.ids.tolist() == expected
    assert found.logits.tolist() == [float(np.float32(logits[i])) for i in expected]


def test_ranked_takes_any_ids() -> None:
    found = Candidates.ranked(np.array([2**31 - 1, 7, 0]), np.array([1.0, 2.0, 1.0], np.float32))
    assert found.ids.tolist() == [7, 0, 2**31 - 1]


def test_keep_leaves_at_least_one() -> None:
    candidates = candidates_of([1.0, 3.0, 2.0])
    assert candidates.keep(2).ids.tolist() == [1, 2]
    assert candidates.keep(0).ids.tolist() == [1]
    assert candidates.keep(9) is candidates


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=50))
def test_probabilities_are_the_softmax(logits: list[float]) -> None:
    candidates = candidates_of(logits)
    odds = [math.exp(logit - max(logits)) for logit in candidates.logits.tolist()]
    assert candidates.probabilities().tolist() == pytest.approx([one / sum(odds) for one in odds], abs=1e-6)
    assert candidates.probabilities().sum() == pytest.approx(1, abs=1e-12)
    assert np.exp(candidates.log_probabilities()) == pytest.approx(candidates.probabilities(), abs=1e-6)


def test_logarithms_are_finite_where_probabilities_are_not() -> None:
    candidates = candidates_of([0.0, -5000.0])
    assert candidates.probabilities().tolist() == [1.0, 0.0]
    assert candidates.log_probabilities().tolist() == [0.0, -5000.0]


def test_bounded() -> None:
    found = bounded(np.array([1.5, math.inf, -math.inf, math.nan, 1e300]))
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([1.5, BOUND, -BOUND, -BOUND, BOUND])
