"""Whole chains against the plain definitions, and what becomes of them when they are compiled."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.sampling.candidates import MAX_CANDIDATES
from engine.sampling.chain import compile_chain
from engine.sampling.sequence_sampler import SequenceSampler
from engine.types import DEFAULT_SAMPLER_ORDER, Sampler, SamplingParams
from tests.engine.sampling import oracle
from tests.engine.sampling.rows import host, one_token_breaker, request, selected

VOCABULARY = 40
BREAKER = 3


def random_params(rng: random.Random) -> SamplingParams:
    """About half of the stages active, in any order, some left out and some twice."""

    def maybe(*values: float) -> float | None:
        return rng.choice(values) if rng.random() < 0.5 else None

    fields: dict[str, Any] = {
        "temperature": maybe(0.5, 0.8, 1.7),
        "top_k": maybe(1, 5, 20, 100),
        "top_p": maybe(0.0, 0.4, 0.9),
        "min_p": maybe(0.02, 0.3),
        "top_a": maybe(0.1, 0.6),
        "tfs": maybe(0.3, 0.8, 0.97),
        "typical": maybe(0.05, 0.5, 0.9),
        "nsigma": maybe(0.5, 1.5, 3.0),
        "rep_pen": maybe(1.1, 1.6, 0.7),
        "rep_pen_range": maybe(0, 3, 20),
        "rep_pen_slope": maybe(0.0, 0.4),
        "presence_penalty": maybe(0.8, -0.3),
        "frequency_penalty": maybe(0.2),
        "dynatemp_range": maybe(0.4, -0.3, 2.0),
        "dynatemp_exponent": maybe(0.5, 2.0),
        "smoothing_factor": maybe(0.1, 0.7),
        "smoothing_curve": maybe(0.5, 2.0, 4.0),
        "dry_multiplier": maybe(0.8, 1.5),
        "dry_allowed_length": maybe(0, 1, 3),
        "dry_penalty_last_n": maybe(0, 8),
    }
    order = list(DEFAULT_SAMPLER_ORDER)
    if rng.random() < 0.7:
        order = rng.choices(order, k=rng.randrange(1, 9)) if rng.random() < 0.2 else rng.sample(order, 7)
    biases = tuple((rng.randrange(VOCABULARY), rng.choice([3.0, -2.0, -math.inf])) for _ in range(3))
    return SamplingParams(
        **{name: value for name, value in fields.items() if value is not None},
        order=tuple(order),
        logit_bias=biases if rng.random() < 0.3 else (),
        seed=rng.randrange(1, 10**6),
    )


def random_row(rng: random.Random) -> list[float]:
    spread = rng.choice([0.3, 2.0, 6.0])
    return [float(np.float32(rng.gauss(0, spread))) for _ in range(VOCABULARY)]


def assert_chain_is_the_oracle(params: SamplingParams, logits: list[float], tokens: list[int]) -> None:
    sampler = SequenceSampler(request(params), breakers=one_token_breaker(BREAKER, VOCABULARY))
    token, found = selected(sampler, host(logits), tokens)
    pairs = oracle.chained(logits, tokens, params, [(BREAKER,)])
    expected = dict(zip([one for one, _ in pairs], oracle.softmax(pairs), strict=True))
    assert found.keys() == expected.keys()
    for one, p in expected.items():
        assert found[one] == pytest.approx(p, abs=2e-5)
    outputs = oracle.mt19937(sampler.seed)
    assert token == oracle.drawn(pairs, (next(outputs) + next(outputs) * 2**32) / 2**64)


@pytest.mark.parametrize("seed", range(300))
def test_any_chain_is_the_plain_one(seed: int) -> None:
    rng = random.Random(seed)
    tokens = [rng.randrange(6) for _ in range(rng.choice([1, 4, 30]))]
    assert_chain_is_the_oracle(random_params(rng), random_row(rng), tokens)


# What the second setting keeps depends on whether the first came before it.
PAIRS: list[tuple[Sampler, Sampler, dict[str, Any]]] = [
    (Sampler.TEMPERATURE, Sampler.TOP_P, {"temperature": 2.5, "top_p": 0.8}),
    (Sampler.TEMPERATURE, Sampler.TOP_A, {"temperature": 2.5, "top_a": 0.9}),
    (Sampler.TEMPERATURE, Sampler.TFS, {"temperature": 3.0, "tfs": 0.8}),
    (Sampler.TEMPERATURE, Sampler.TYPICAL, {"temperature": 3.0, "typical": 0.5}),
    (Sampler.TEMPERATURE, Sampler.TOP_P, {"temperature": 0.3, "min_p": 0.1}),
    (Sampler.REP_PEN, Sampler.TOP_K, {"rep_pen": 1.8, "top_k": 2}),
    (Sampler.REP_PEN, Sampler.TOP_P, {"presence_penalty": 4.0, "top_p": 0.8}),
    (Sampler.REP_PEN, Sampler.TEMPERATURE, {"presence_penalty": 1.0, "temperature": 2.0}),
    (Sampler.TOP_K, Sampler.TOP_P, {"top_k": 2, "top_p": 0.6}),
    (Sampler.TOP_K, Sampler.TYPICAL, {"top_k": 3, "typical": 0.4}),
    (Sampler.TOP_P, Sampler.TFS, {"top_p": 0.9, "tfs": 0.6}),
]


@pytest.mark.parametrize(("first", "second", "fields"), PAIRS)
def test_the_order_is_the_request_s(first: Sampler, second: Sampler, fields: dict[str, Any]) -> None:
    logits = [4.0, 3.5, 3.2, 2.0, 1.5, 1.0, 0.0, -1.0] + [-4.0] * (VOCABULARY - 8)
    tokens = [0, 1]
    one_way = SamplingParams(order=(first, second), seed=1, **fields)
    other_way = replace(one_way, order=(second, first))
    assert oracle.chained(logits, tokens, one_way) != oracle.chained(logits, tokens, other_way)
    for params in (one_way, other_way):
        assert_chain_is_the_oracle(params, logits, tokens)


def test_the_default_order_ends_with_temperature_and_min_p_follows_top_p() -> None:
    logits = [3.0, 2.6, 2.0, 1.0, 0.5] + [-9.0] * 20
    params = SamplingParams(top_p=0.9, min_p=0.6, temperature=5.0, seed=1)
    _, found = selected(SequenceSampler(request(params)), host(logits), [1])
    assert sorted(found) == [0, 1]
    early = replace(params, order=(Sampler.TEMPERATURE, Sampler.TOP_P))
    _, found = selected(SequenceSampler(request(early)), host(logits), [1])
    assert len(found) > 2


def test_bias_comes_before_dry_and_dry_before_the_penalties() -> None:
    # (2 + 3 - 1) / 2: any other order gives another figure
    logits, tokens = [0.0, 2.0, 0.0, 0.0], [2, 1, 2]
    params = SamplingParams(
        logit_bias=((1, 3.0),), dry_multiplier=1.0, dry_allowed_length=1, rep_pen=2.0, seed=1
    )
    _, found = selected(SequenceSampler(request(params)), host(logits), tokens)
    assert math.log(found[1] / found[0]) == pytest.approx(2.0, abs=1e-5)


def test_neutral_settings_leave_nothing_to_do() -> None:
    chain = compile_chain(SamplingParams())
    assert (chain.biases, chain.vocabulary, chain.candidates) == (None, (), ())
    assert (chain.cut, chain.within, chain.greedy) == (MAX_CANDIDATES, math.inf, False)


def test_first_truncations_are_the_cut() -> None:
    params = SamplingParams(top_k=7, min_p=0.5, order=(Sampler.TOP_K, Sampler.TOP_P, Sampler.TOP_K))
    chain = compile_chain(params)
    assert (chain.cut, chain.candidates) == (7, ())
    assert chain.within == pytest.approx(math.log(2))
    behind = compile_chain(replace(params, order=(Sampler.TOP_P, Sampler.TOP_K), top_p=0.9))
    assert (behind.cut, behind.within, len(behind.candidates)) == (MAX_CANDIDATES, math.inf, 3)


def test_a_min_p_beyond_certainty_keeps_the_likeliest() -> None:
    for order in ((Sampler.TOP_P,), (Sampler.TEMPERATURE, Sampler.TOP_P)):
        params = SamplingParams(min_p=5.0, temperature=0.5, order=order, seed=1)
        assert selected(SequenceSampler(request(params)), host([0.0, 2.0, 1.0]), [1]) == (1, {1: 1.0})


def test_a_stage_left_out_of_the_order_is_not_run() -> None:
    params = SamplingParams(temperature=0, top_k=3, rep_pen=1.5, order=(Sampler.TOP_K,))
    chain = compile_chain(params)
    assert (chain.vocabulary, chain.cut, chain.candidates, chain.greedy) == ((), 3, (), False)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
@pytest.mark.parametrize("others", [{}, {"top_k": 7, "top_p": 0.5, "tfs": 0.5}, {"dynatemp_range": 1.0}])
def test_greedy_is_one_argmax_where_it_can_be(temperature: float, others: dict[str, Any]) -> None:
    params = SamplingParams(temperature=temperature, xtc_probability=1.0, xtc_threshold=0.01, **others)
    chain = compile_chain(params)
    assert (chain.cut, chain.candidates, chain.greedy) == (1, (), True)
    logits = random_row(random.Random(3))
    token, found = selected(SequenceSampler(request(params)), host(logits), [1])
    assert (token, found) == (int(np.argmax(logits)), {token: 1.0})


def test_greedy_minds_what_can_change_the_likeliest() -> None:
    logits = [0.0] * VOCABULARY
    logits[7], logits[8], logits[9] = 3.0, 2.9, 2.8

    def draw(tokens: list[int], **fields: Any) -> int:
        sampler = SequenceSampler(request(SamplingParams(temperature=0, **fields)))
        return selected(sampler, host(logits), tokens)[0]

    late = (Sampler.TOP_K, Sampler.REP_PEN, Sampler.TEMPERATURE)
    assert draw([1]) == 7
    assert draw([7], rep_pen=2.0) == 8
    assert draw([7], rep_pen=2.0, top_k=2, order=late) == 8
    assert draw([7, 8], rep_pen=2.0, top_k=2, order=late) == 7
    assert draw([7, 1, 7, 1], dry_multiplier=5.0, dry_allowed_length=1) == 8
    assert draw([1], logit_bias=((9, 1.0),)) == 9
    # the likeliest token is the least typical one
    assert draw([1], typical=0.05) != 7
    assert draw([7], rep_pen=2.0, order=(Sampler.TEMPERATURE, Sampler.REP_PEN)) == 7


def test_no_more_than_the_best_5000_take_part() -> None:
    logits = np.random.default_rng(1).standard_normal(MAX_CANDIDATES + 500).astype(np.float32)
    _, found = selected(SequenceSampler(request(SamplingParams(seed=1))), host(logits), [1])
    assert set(found) == set(np.argsort(-logits, kind="stable")[:MAX_CANDIDATES].tolist())


def test_biases_of_one_token_add_up() -> None:
    params = SamplingParams(logit_bias=((3, 1.5), (4, -math.inf), (3, 0.5)), seed=1)
    _, found = selected(SequenceSampler(request(params)), host([0.0] * 6), [1])
    assert found.keys() == {0, 1, 2, 3, 5}
    assert math.log(found[3] / found[5]) == pytest.approx(2.0, abs=1e-6)
