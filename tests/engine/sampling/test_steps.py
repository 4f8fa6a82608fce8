"""Each step against its definition in numpy, over random logits."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.sampling import Candidates, steps

logit_lists = st.lists(
    st.floats(-12, 12, width=32).map(lambda x: round(x, 3)), min_size=1, max_size=40, unique=True
)
quick = settings(max_examples=60, deadline=None)


def candidates_of(logits: list[float]) -> Candidates:
    return Candidates.best(torch.tensor(logits), len(logits))


def falling(logits: list[float]) -> tuple[list[int], np.ndarray]:
    """Ids by falling logit, and their probabilities."""
    values = np.array(logits, np.float32).astype(np.float64)
    order = np.argsort(-values, kind="stable")
    odds = np.exp(values[order] - values.max())
    return order.tolist(), odds / odds.sum()


@quick
@given(logit_lists, st.integers(1, 50))
def test_best_and_top_k(logits: list[float], k: int) -> None:
    order, _ = falling(logits)
    assert steps.top_k(k)(candidates_of(logits)).ids.tolist() == order[:k]
    assert Candidates.best(torch.tensor(logits), k).ids.tolist() == order[:k]


@quick
@given(logit_lists, st.floats(0, 0.999))
def test_top_p_keeps_the_token_that_crosses(logits: list[float], p: float) -> None:
    order, probabilities = falling(logits)
    sums = np.cumsum(probabilities)
    assume(np.abs(sums - p).min() > 1e-6)
    kept = int(np.searchsorted(sums, p)) + 1
    assert steps.top_p(p)(candidates_of(logits)).ids.tolist() == order[:kept]


def test_top_p_just_under_the_rounded_sum_keeps_everything() -> None:
    candidates = candidates_of([0.0] * 7)
    beyond = 1 + 1e-9
    assert len(steps.top_p(beyond)(candidates).ids) == 7


@quick
@given(logit_lists, st.floats(0.001, 1))
def test_min_p_is_relative_to_the_likeliest(logits: list[float], p: float) -> None:
    order, probabilities = falling(logits)
    ratios = probabilities / probabilities[0]
    assume(np.abs(ratios[1:] - p).min(initial=1) > 1e-5)
    assert steps.min_p(p)(candidates_of(logits)).ids.tolist() == order[: max(1, int((ratios >= p).sum()))]


@quick
@given(logit_lists, st.floats(0.05, 5))
def test_temperature_divides(logits: list[float], t: float) -> None:
    candidates = steps.temperature(t)(candidates_of(logits))
    order, expected = falling([x / t for x in logits])
    found = dict(zip(candidates.ids.tolist(), candidates.probabilities().tolist(), strict=True))
    for token, p in zip(order, expected, strict=True):
        assert abs(found[token] - p) < 1e-5


@quick
@given(logit_lists)
def test_temperature_zero_keeps_the_likeliest(logits: list[float]) -> None:
    assert steps.temperature(0)(candidates_of(logits)).ids.tolist() == [int(np.argmax(logits))]
