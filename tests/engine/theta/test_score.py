import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.theta.score import tpe, tpe_class

PERPLEXITIES, OVERHEADS = st.floats(1, 1e6), st.floats(-0.5, 10)


@pytest.mark.parametrize(
    ("perplexity", "overhead", "score"),
    [(6.85, 0.0, 0.1460), (6.41, 0.0, 0.1560), (6.41, 0.11, 0.1492), (2.0, 9.0, 0.25)],
)
def test_figures_by_hand(perplexity: float, overhead: float, score: float) -> None:
    assert tpe(perplexity, overhead) == pytest.approx(score, abs=5e-5)


@given(PERPLEXITIES)
def test_the_baseline_scores_the_inverse_of_its_perplexity(perplexity: float) -> None:
    assert tpe(perplexity, 0.0) == 1 / perplexity


@given(PERPLEXITIES, OVERHEADS, st.floats(1e-3, 1))
def test_perplexity_and_overhead_both_lower_it(perplexity: float, overhead: float, more: float) -> None:
    assert tpe(perplexity * (1 + more), overhead) < tpe(perplexity, overhead)
    assert tpe(perplexity, overhead + more) < tpe(perplexity, overhead)


@pytest.mark.parametrize(
    ("score", "name"),
    [(0.16, "best"), (0.150, "excellent"), (0.145, "good"), (0.140, "below"), (0.1401, "good"), (0, "below")],
)
def test_classes(score: float, name: str) -> None:
    assert tpe_class(score) == name


@pytest.mark.parametrize(
    ("perplexity", "overhead"),
    [(0.5, 0.0), (math.nan, 0.0), (6.0, -0.9), (6.0, -1.0), (6.0, math.nan), (6.0, math.inf)],
)
def test_what_has_no_score(perplexity: float, overhead: float) -> None:
    with pytest.raises(ValueError, match="no score"):
        tpe(perplexity, overhead)
