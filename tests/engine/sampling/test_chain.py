import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling import Candidates, SequenceSampler, compile_chain, steps
from engine.sampling.candidates import MAX_CANDIDATES
from engine.sampling.penalties import Penalties
from engine.types import GenerationRequest, Sampler, SamplingParams, TokenPrompt

VOCABULARY = 32


def draw(logits: torch.Tensor, params: SamplingParams, *, ban_eos: bool = False, context: list[int]) -> int:
    request = GenerationRequest("x", TokenPrompt((0,)), 1, params, ban_eos=ban_eos)
    return SequenceSampler(request, frozenset({2, 5})).draw(logits, context)


def plain(params: SamplingParams, logits: torch.Tensor, context: list[int]) -> Candidates:
    """Every step in the request's order on all candidates, nothing dropped and nothing fused."""
    logits = logits.clone()
    for token, amount in params.logit_bias:
        logits[token] += amount
    candidates = Candidates.best(logits, VOCABULARY)
    for name in params.order:
        if name is Sampler.REP_PEN:
            candidates = Penalties(params).on_candidates(candidates, context)
        elif name is Sampler.TOP_K and params.top_k >= 1:
            candidates = steps.top_k(params.top_k)(candidates)
        elif name is Sampler.TOP_P:
            if params.top_p < 1:
                candidates = steps.top_p(params.top_p)(candidates)
            if params.min_p > 0:
                candidates = steps.min_p(params.min_p)(candidates)
        elif name is Sampler.TEMPERATURE:
            candidates = steps.temperature(params.temperature)(candidates)
    return candidates


@settings(max_examples=250, deadline=None)
@given(
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
        top_k=st.sampled_from([0, 1, 5, 100]),
        top_p=st.sampled_from([1.0, 0.9, 0.4]),
        min_p=st.sampled_from([0.0, 0.05, 0.3]),
        rep_pen=st.sampled_from([1.0, 1.3]),
        presence_penalty=st.sampled_from([0.0, 0.7]),
        frequency_penalty=st.sampled_from([0.0, 0.3]),
        logit_bias=st.sampled_from([(), ((3, 5.0), (4, -5.0))]),
        order=st.sampled_from(
            list(permutations((Sampler.REP_PEN, Sampler.TOP_K, Sampler.TOP_P, Sampler.TEMPERATURE)))
        ),
    ),
    st.lists(st.integers(0, VOCABULARY - 1), max_size=12),
    st.integers(0, 2**31),
)
def test_the_compiled_chain_does_what_the_plain_one_does(
    params: SamplingParams, context: list[int], seed: int
) -> None:
    logits = 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))
    untouched = logits.clone()
    found, expected = compile_chain(params)(logits, context), plain(params, logits, context)
    assert torch.equal(logits, untouched)
    if params.temperature <= 0:
        # greedy needs the likeliest only, and what it looks like after the division does not matter
        assert int(found.ids[0]) == int(expected.ids[0])
        return
    assert found.ids.tolist() == expected.ids.tolist()
    torch.testing.assert_close(found.probabilities(), expected.probabilities(), atol=1e-6, rtol=1e-5)


def test_neutral_settings_leave_nothing_to_do() -> None:
    chain = compile_chain(SamplingParams())
    assert (chain.vocabulary, chain.cut, chain.candidates) == ((), MAX_CANDIDATES, ())


def test_a_first_top_k_is_the_cut_and_greedy_cuts_to_one() -> None:
    assert compile_chain(SamplingParams(top_k=7)).cut == 7
    greedy = compile_chain(SamplingParams(temperature=0, top_k=7, top_p=0.5))
    assert (greedy.cut, greedy.candidates) == (1, ())


def test_a_stage_left_out_of_the_order_is_not_run() -> None:
    params = SamplingParams(temperature=0.5, top_k=3, rep_pen=1.5, order=(Sampler.TOP_K,))
    chain = compile_chain(params)
    assert (chain.vocabulary, chain.cut, chain.candidates) == ((), 3, ())


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_greedy_draws_the_likeliest(temperature: float) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3))
    assert draw(logits, SamplingParams(temperature=temperature), context=[]) == int(logits.argmax())


def test_greedy_after_penalties() -> None:
    logits = torch.zeros(VOCABULARY)
    logits[7], logits[8] = 3.0, 2.0
    params = SamplingParams(temperature=0, rep_pen=2.0)
    assert draw(logits, params, context=[]) == 7
    assert draw(logits, params, context=[7]) == 8
    late = SamplingParams(temperature=0, rep_pen=2.0, order=(Sampler.TOP_K, Sampler.REP_PEN))
    assert int(compile_chain(late)(logits, [7]).ids[0]) == 8


def test_bias_adds_and_can_force_and_forbid() -> None:
    logits = torch.zeros(VOCABULARY)
    greedy = SamplingParams(temperature=0, logit_bias=((9, 100.0),))
    assert draw(logits, greedy, context=[]) == 9
    out = SamplingParams(logit_bias=((3, 1.5), (4, -math.inf), (3, 0.5)))
    candidates = compile_chain(out)(logits, [])
    found = dict(zip(candidates.ids.tolist(), candidates.logits.tolist(), strict=True))
    assert (found[3], found[4], found[5]) == (2.0, -math.inf, 0.0)


def test_a_banned_end_is_never_drawn_whatever_the_bias() -> None:
    logits = torch.zeros(VOCABULARY)
    logits[2] = 50.0
    for seed in range(20):
        params = SamplingParams(seed=seed, logit_bias=((5, 80.0), (7, 3.0)))
        assert draw(logits, params, ban_eos=True, context=[]) not in (2, 5)
    assert draw(logits, SamplingParams(temperature=0, seed=1), ban_eos=False, context=[]) == 2


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=1),
        SamplingParams(temperature=0),
        SamplingParams(top_k=5, top_p=0.5, min_p=0.1, temperature=0.7, seed=1),
        SamplingParams(rep_pen=1.5, order=(Sampler.TOP_P, Sampler.REP_PEN), top_p=0.9, seed=1),
    ],
)
@pytest.mark.parametrize("damage", ["all", "one", "infinite", "minus"])
def test_damaged_logits_still_give_a_token(params: SamplingParams, damage: str) -> None:
    logits = torch.zeros(VOCABULARY)
    if damage == "all":
        logits[:] = math.nan
    elif damage == "one":
        logits[4] = math.nan
    else:
        logits[:] = math.inf if damage == "infinite" else -math.inf
    assert 0 <= draw(logits, params, context=[1, 4]) < VOCABULARY


def test_no_more_than_the_best_5000_take_part() -> None:
    logits = torch.randn(MAX_CANDIDATES + 500, generator=torch.Generator().manual_seed(1))
    candidates = compile_chain(SamplingParams())(logits, [])
    assert len(candidates.ids) == MAX_CANDIDATES
    assert float(candidates.logits.min()) >= float(logits.sort(descending=True).values[MAX_CANDIDATES - 1])
