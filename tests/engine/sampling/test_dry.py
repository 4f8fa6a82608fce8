from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.candidates import BOUND
from engine.sampling.dry import Dry
from engine.types import SamplingParams
from tests.engine.sampling import oracle
from tests.engine.sampling.rows import host, one_token_breaker

VOCABULARY = 6


def lowered(dry: Dry, tokens: list[int]) -> dict[int, float]:
    """What is taken away from whom."""
    logits = host([0.0] * VOCABULARY)
    with np.errstate(over="ignore"):
        dry(logits, tokens)
    return {token: -value for token, value in enumerate(logits.take(np.arange(VOCABULARY))) if value}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(0, 20),
    st.builds(
        SamplingParams,
        dry_multiplier=st.floats(0.1, 2),
        dry_base=st.sampled_from([0.5, 1.0, 1.3, 1.75]),
        dry_allowed_length=st.integers(-1, 4),
        dry_penalty_last_n=st.sampled_from([-1, 0, 3, 9, 20]),
    ),
    st.none() | st.integers(0, 3),
)
def test_definition_while_a_context_grows(
    tokens: list[int], first: int, params: SamplingParams, breaker: int | None
) -> None:
    dry = Dry(params, None if breaker is None else one_token_breaker(breaker, VOCABULARY))
    for end in range(max(1, min(first, len(tokens))), len(tokens) + 1):
        sequences: list[tuple[int, ...]] = [] if breaker is None else [(breaker,)]
        expected = oracle.dry_penalties(tokens[:end], params, sequences)
        assert lowered(dry, tokens[:end]) == pytest.approx(dict(expected), rel=1e-5)


def test_the_longest_repetition_counts() -> None:
    # behind 1 2 comes 3 after three equal tokens and 4 after two
    tokens = [5, 1, 2, 3, 0, 1, 2, 4, 5, 1, 2]
    found = lowered(Dry(SamplingParams(dry_multiplier=0.5, dry_base=3.0), None), tokens)
    assert found == pytest.approx({3: 0.5 * 3, 4: 0.5})


def test_the_exponent_is_limited_to_what_a_float_can_hold() -> None:
    params = SamplingParams(dry_multiplier=1e-37, dry_penalty_last_n=0)
    # 158 = floor(ln(largest float32) / ln 1.75), of 397
    assert lowered(Dry(params, None), [1] * 400) == pytest.approx({1: 1e-37 * 1.75**158}, rel=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"dry_base": 1e300, "dry_multiplier": 1e300},
        {"dry_base": 1.75, "dry_multiplier": 1.0},
        {"dry_base": 1.0000001, "dry_allowed_length": -(2**31)},
        {"dry_base": 1.000001, "dry_allowed_length": -(2**31)},
    ],
)
def test_no_penalty_is_infinite(fields: dict[str, Any]) -> None:
    params = SamplingParams(dry_penalty_last_n=0, **{"dry_multiplier": 1.0, **fields})
    (penalty,) = lowered(Dry(params, None), [1] * 400).values()
    assert 1 < penalty <= np.float32(BOUND)
