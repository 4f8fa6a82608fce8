import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.candidates import BOUND
from engine.sampling.penalties import Penalties
from engine.types import SamplingParams
from tests.engine.sampling import oracle
from tests.engine.sampling.rows import candidates_of, host

VOCABULARY = 12

penalties = st.builds(
    SamplingParams,
    rep_pen=st.floats(0.5, 2),
    rep_pen_range=st.integers(-1, 12),
    rep_pen_slope=st.floats(0, 1),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
)
rows = st.lists(st.floats(-8, 8, width=32), min_size=VOCABULARY, max_size=VOCABULARY)
contexts = st.lists(st.integers(0, VOCABULARY - 1), max_size=20)


def on_vocabulary(row: list[float], tokens: list[int], params: SamplingParams) -> list[float]:
    logits = host(row)
    Penalties(params).on_vocabulary(logits, tokens)
    changed: list[float] = logits.take(np.arange(len(row))).tolist()
    return changed


@settings(max_examples=150, deadline=None)
@given(rows, contexts, penalties)
def test_on_vocabulary_is_the_definition(row: list[float], tokens: list[int], params: SamplingParams) -> None:
    expected = dict(oracle.penalised(list(enumerate(row)), tokens, params))
    found = on_vocabulary(row, tokens, params)
    assert found == pytest.approx([expected[i] for i in range(VOCABULARY)], abs=1e-5)


@settings(max_examples=150, deadline=None)
@given(rows, contexts, penalties, st.integers(1, VOCABULARY))
def test_on_candidates_is_the_same_and_sorted(
    row: list[float], tokens: list[int], params: SamplingParams, count: int
) -> None:
    before = candidates_of(row).keep(count)
    after = Penalties(params).on_candidates(before, tokens)
    assert sorted(after.ids.tolist()) == sorted(before.ids.tolist())
    assert after.logits.tolist() == sorted(after.logits.tolist(), reverse=True)
    expected = dict(oracle.penalised(list(enumerate(row)), tokens, params))
    assert after.logits.tolist() == pytest.approx([expected[i] for i in after.ids.tolist()], abs=1e-5)


def test_frequency_counts_and_presence_does_not() -> None:
    params = SamplingParams(presence_penalty=1.0, frequency_penalty=0.25)
    assert on_vocabulary([0.0] * 4, [2, 2, 2, 1], params) == [0.0, -1.25, -1.75, 0.0]


def test_the_window_has_at_least_one_token() -> None:
    params = SamplingParams(rep_pen=2.0, rep_pen_range=0)
    assert on_vocabulary([1.0] * 4, [3, 1], params) == [1.0, 0.5, 1.0, 1.0]


def test_a_token_in_both_halves_has_the_penalty_of_the_newer() -> None:
    params = SamplingParams(rep_pen=2.0, rep_pen_slope=0.5)
    assert on_vocabulary([1.0] * 4, [1, 2, 1, 3], params) == pytest.approx([1, 1 / 2, 1 / 1.5, 1 / 2])


@pytest.mark.parametrize(
    ("params", "neutral"),
    [
        (SamplingParams(), True),
        (SamplingParams(rep_pen=0.0), True),
        (SamplingParams(rep_pen=-1.0), True),
        (SamplingParams(rep_pen=1.01), False),
        (SamplingParams(presence_penalty=-0.1), False),
        (SamplingParams(frequency_penalty=0.1), False),
    ],
)
def test_neutral(params: SamplingParams, neutral: bool) -> None:
    assert Penalties(params).neutral == neutral


@pytest.mark.parametrize("rep_pen", [1e-300, 1e300])
@pytest.mark.parametrize("presence", [0.0, 1e300, -1e300])
def test_extreme_penalties_stay_numbers(rep_pen: float, presence: float) -> None:
    params = SamplingParams(rep_pen=rep_pen, presence_penalty=presence)
    row, tokens = [1e30, 2.0, -2.0, -1e30, 0.0], [0, 1, 2, 3]
    with np.errstate(over="ignore"):
        found = on_vocabulary(row, tokens, params)
        assert not np.isnan(found).any()
        assert max(found) <= np.float32(BOUND)
        after = Penalties(params).on_candidates(candidates_of(row), tokens)
    assert np.isfinite(after.logits).all()
