"""Each truncation against its definition, over random logits, and where its limits lie."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.truncation import (
    Step,
    min_p,
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
