"""Draws on the device with settings at the edge of what numbers can be, against the sampler's own steps."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.kernels import Drawing, Draws
from engine.kernels.cuda.sampling import sample
from engine.sampling.row import Row
from engine.sampling.sequence_sampler import SequenceSampler
from engine.types import SamplingParams
from tests.engine.sampling import extremes
from tests.engine.sampling.rows import host, request, selected

pytestmark = pytest.mark.triton

MOST = 8


def drawing(params: SamplingParams) -> Drawing | None:
    """How the kernels are to draw a token; None where they have no part in it."""
    return SequenceSampler(request(params)).drawing(Row("x", extremes.TOKENS))


def by_steps(params: SamplingParams, row: list[float]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.native.shortlist.open_library", lambda: None)
        return selected(SequenceSampler(request(params)), host(row), extremes.TOKENS)[0]


def check(several: list[SamplingParams], rows: list[list[float]], device: torch.device) -> int:
    """Whether the kernels draw the tokens that the steps draw; of how many."""
    found = [(params, row, drawing(params)) for params, row in zip(several, rows, strict=True)]
    drawn = [(params, row, one) for params, row, one in found if one is not None]
    if drawn:
        logits = torch.tensor([row for _, row, _ in drawn], device=device)
        tokens = sample(logits, Draws(Draws.of([one for _, _, one in drawn], device).table, MOST))
        assert tokens.tolist() == [by_steps(params, row) for params, row, _ in drawn], drawn
    return len(drawn)


def test_a_limit_means_what_it_comes_to(device: torch.device) -> None:
    several = [
        extremes.params_of({"top_k": 5, "seed": seed} | dict(given_fields))
        for given_fields, _ in extremes.LIMITS
        for seed in (1, 2, 3)
    ]
    assert check(several, [extremes.ROW] * len(several), device) > 80


tails = st.fixed_dictionaries(
    {
        "seed": st.integers(1, 10**6),
        "top_k": st.integers(1, MOST),
        **dict.fromkeys(("temperature", "min_p"), st.sampled_from(extremes.EDGES)),
        # Sums that just reach a half depend on the order in which they are made.
        "top_p": st.sampled_from([edge for edge in extremes.EDGES if edge != 0.5]),
    }
)
rows = st.lists(
    st.integers(-30, 30).map(float) | st.sampled_from([float("-inf"), -1e30, -1e29, 1e29, 1e30, -0.0, 1e-30]),
    min_size=8,
    max_size=8,
).filter(lambda row: max(row) > float("-inf"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(tails, rows), min_size=8, max_size=8))
def test_the_kernels_take_the_tokens_of_the_steps(
    device: torch.device, asked: list[tuple[dict[str, Any], list[float]]]
) -> None:
    several = [SamplingParams(**given_fields) for given_fields, _ in asked]
    check(several, [row for _, row in asked], device)
