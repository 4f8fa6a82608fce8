import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling import Candidates
from engine.sampling.penalties import Penalties
from engine.types import SamplingParams

VOCABULARY = 12


def oracle(logits: np.ndarray, context: list[int], params: SamplingParams) -> np.ndarray:
    """The definition, one token of the window at a time."""
    logits = logits.astype(np.float64)
    window = context[-max(1, params.rep_pen_range) :]
    for token in set(window):
        last = max(i for i, seen in enumerate(window) if seen == token)
        factor = params.rep_pen
        if 2 * last < len(window) and params.rep_pen > 1 and params.rep_pen_slope > 0:
            factor = 1 + (params.rep_pen - 1) * params.rep_pen_slope
        logits[token] = logits[token] * factor if logits[token] <= 0 else logits[token] / factor
        logits[token] -= params.presence_penalty + params.frequency_penalty * window.count(token)
    return logits


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


@settings(max_examples=150, deadline=None)
@given(rows, contexts, penalties)
def test_on_vocabulary_is_the_definition(
    row: list[float], context: list[int], params: SamplingParams
) -> None:
    logits = torch.tensor(row)
    Penalties(params).on_vocabulary(logits, context)
    np.testing.assert_allclose(logits.numpy(), oracle(np.array(row, np.float32), context, params), atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(rows, contexts, penalties, st.integers(1, VOCABULARY))
def test_on_candidates_is_the_same_and_sorted(
    row: list[float], context: list[int], params: SamplingParams, count: int
) -> None:
    logits = torch.tensor(row)
    before = Candidates.best(logits, count)
    after = Penalties(params).on_candidates(before, context)
    assert sorted(after.ids.tolist()) == sorted(before.ids.tolist())
    assert after.logits.tolist() == sorted(after.logits.tolist(), reverse=True)
    expected = oracle(np.array(row, np.float32), context, params)
    np.testing.assert_allclose(after.logits.numpy(), expected[after.ids.numpy()], atol=1e-5)


def test_frequency_counts_and_presence_does_not() -> None:
    logits = torch.zeros(4)
    params = SamplingParams(presence_penalty=1.0, frequency_penalty=0.25)
    Penalties(params).on_vocabulary(logits, [2, 2, 2, 1])
    assert logits.tolist() == [0.0, -1.25, -1.75, 0.0]


def test_the_window_has_at_least_one_token() -> None:
    logits = torch.ones(4)
    Penalties(SamplingParams(rep_pen=2.0, rep_pen_range=0)).on_vocabulary(logits, [3, 1])
    assert logits.tolist() == [1.0, 0.5, 1.0, 1.0]


def test_a_token_in_both_halves_has_the_penalty_of_the_newer() -> None:
    logits = torch.ones(4)
    params = SamplingParams(rep_pen=2.0, rep_pen_slope=0.5)
    Penalties(params).on_vocabulary(logits, [1, 2, 1, 3])
    assert logits.tolist() == pytest.approx([1, 1 / 2, 1 / 1.5, 1 / 2])
