"""XTC, mirostat and adaptive-p over several tokens, against the plain definitions."""

import math
import random
from typing import Any

import numpy as np
import pytest

from engine.sampling.random import MersenneTwister
from engine.sampling.selection import _draw
from engine.sampling.sequence_sampler import SequenceSampler
from engine.sampling.xtc import exclude_top_choices
from engine.types import Sampler, SamplingParams
from tests.engine.sampling import oracle
from tests.engine.sampling.rows import candidates_of, host, request, selected

VOCABULARY = 30
TOKENS = 6


def rows(seed: int, spread: float = 2.0) -> list[list[float]]:
    rng = random.Random(seed)
    return [[float(np.float32(rng.gauss(0, spread))) for _ in range(VOCABULARY)] for _ in range(TOKENS)]


def assert_same(found: dict[int, float], pairs: oracle.Pairs) -> None:
    expected = dict(zip([token for token, _ in pairs], oracle.softmax(pairs), strict=True))
    assert found.keys() == expected.keys()
    for token, p in expected.items():
        assert found[token] == pytest.approx(p, abs=2e-5)


class Stream:
    """The random numbers of the definition."""

    def __init__(self, seed: int) -> None:
        self._outputs = oracle.mt19937(seed)

    def double(self) -> float:
        return (next(self._outputs) + next(self._outputs) * 2**32) / 2**64

    def single(self) -> float:
        return next(self._outputs) / 2**32


LATER_FORMS: list[dict[str, Any]] = [
    *({"nsigma": n} for n in (0.4, 1.0, 1.7, 2.5)),
    *({"nsigma": n, "temperature": t} for n in (0.6, 1.2) for t in (0.6, 2.0)),
    *({"nsigma": 1.0, "top_p": 0.8, "order": o} for o in ((Sampler.TOP_P, Sampler.TEMPERATURE),)),
    *({"nsigma": 1.0, "top_p": 0.8, "order": o} for o in ((Sampler.TEMPERATURE, Sampler.TOP_P),)),
    *({"smoothing_factor": f, "smoothing_curve": c} for f in (0.15, 0.6) for c in (0.4, 1.0, 2.2, 4.5)),
    *({"smoothing_factor": 0.3, "smoothing_curve": c, "temperature": 1.6} for c in (0.7, 1.9, 3.0)),
    *({"smoothing_factor": 0.3, "smoothing_curve": c, "dynatemp_range": 0.6} for c in (0.5, 1.8, 3.5)),
    *({"dynatemp_range": r, "dynatemp_exponent": e} for r in (-0.4, 0.7) for e in (0.0, 0.6, 2.0)),
    *({"adaptive_target": t, "adaptive_decay": d} for t in (0.05, 0.35, 0.8) for d in (0.0, 0.5, 0.9, 1.0)),
    {"adaptive_target": 0.3, "min_p": 0.1},
    {"adaptive_target": 0.3, "top_p": 0.7, "temperature": 1.4},
    {"adaptive_target": 0.4, "xtc_probability": 0.6, "xtc_threshold": 0.1},
    {"adaptive_target": 0.4, "top_k": 1},
    {"temperature": 0.0, "nsigma": 1.0, "adaptive_target": 0.5},
    {"temperature": -0.5, "smoothing_factor": 0.3},
]


@pytest.mark.parametrize("number", range(len(LATER_FORMS)))
def test_later_forms(number: int) -> None:
    params = SamplingParams(seed=number + 1, **LATER_FORMS[number])
    sampler, stream = SequenceSampler(request(params)), Stream(number + 1)
    adaptive = oracle.Adaptive(params) if params.adaptive_target > 0 else None
    for row in rows(number):
        pairs = oracle.chained(row, [1], params)
        greedy = params.temperature <= 0
        if params.xtc_probability > 0 and len(pairs) > 1:
            pairs = oracle.top_choices_excluded(pairs, params, stream.single())
        if adaptive is not None and not greedy:
            pairs = adaptive.reshaped(pairs)
        token, found = selected(sampler, host(row), [1])
        assert_same(found, pairs)
        assert token == (pairs[0][0] if greedy else oracle.drawn(pairs, stream.double()))
        if adaptive is not None:
            adaptive.learn(row, token)


def test_there_are_forty_later_forms() -> None:
    assert len(LATER_FORMS) >= 40


def test_adaptive_p_steers_towards_its_target() -> None:
    params = SamplingParams(adaptive_target=0.3, adaptive_decay=0.9, seed=7)
    sampler = SequenceSampler(request(params))
    logits = [math.log(p) for p in (0.5, 0.3, 0.1, 0.06, 0.04)]
    drawn = [selected(sampler, host(logits), [1])[0] for _ in range(300)]
    average = sum(math.exp(logits[token]) for token in drawn) / len(drawn)
    assert average == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_xtc_token_by_token(seed: int, probability: float) -> None:
    # in some of the rows a single candidate is left
    params = SamplingParams(xtc_probability=probability, xtc_threshold=0.12, top_p=0.6, seed=seed)
    sampler, stream = SequenceSampler(request(params)), Stream(seed)
    for row in rows(seed, spread=3.0):
        pairs = oracle.chained(row, [1], params)
        if len(pairs) > 1:
            pairs = oracle.top_choices_excluded(pairs, params, stream.single())
        token, found = selected(sampler, host(row), [1])
        assert_same(found, pairs)
        assert token == oracle.drawn(pairs, stream.double())


@pytest.mark.parametrize(("threshold", "lowered"), [(0.25, 3), (0.25 + 1e-9, 0), (0.25 - 1e-9, 3), (0.0, 3)])
def test_a_token_exactly_at_the_threshold_is_a_top_choice(threshold: float, lowered: int) -> None:
    """KoboldCpp looks for the first one below it."""
    found = exclude_top_choices(threshold)(candidates_of([0.0] * 4))
    assert sorted(found.logits.tolist()) == [-999.0] * lowered + [0.0] * (4 - lowered)
    # the last in order is spared
    assert (found.ids[0] == 3) == (lowered > 0)


def test_two_top_choices_are_enough_and_one_is_not() -> None:
    two = exclude_top_choices(0.4)(candidates_of([2.0, 2.0, 0.0]))
    assert dict(zip(two.ids.tolist(), two.logits.tolist(), strict=True)) == {1: 2.0, 2: 0.0, 0: -997.0}
    one = exclude_top_choices(0.4)(candidates_of([2.0, 1.0, 0.0]))
    assert one.logits.tolist() == [2.0, 1.0, 0.0]


def test_xtc_of_half_is_on() -> None:
    params = SamplingParams(xtc_threshold=0.5, xtc_probability=1.0, seed=1)
    token, found = selected(SequenceSampler(request(params)), host([0.0, 0.0]), [1])
    assert (token, found) == (1, {1: 1.0, 0: 0.0})


def test_a_number_that_just_meets_the_probability_of_xtc_leaves_it_out() -> None:
    drawn = MersenneTwister(7).single()
    for probability, expected in (
        (drawn, {0: 0.5, 1: 0.5}),
        (math.nextafter(drawn, 1), {1: 1.0, 0: 0.0}),
    ):
        params = SamplingParams(xtc_threshold=0.1, xtc_probability=probability, seed=7)
        assert selected(SequenceSampler(request(params)), host([0.0, 0.0]), [1])[1] == expected


def test_xtc_comes_last_and_spares_the_least_likely_choice() -> None:
    logits = [3.0, 2.9, 2.8, -1.0]
    params = SamplingParams(xtc_probability=1.0, xtc_threshold=0.1, top_k=3, seed=1)
    token, found = selected(SequenceSampler(request(params)), host(logits), [1])
    assert token == 2
    assert found == pytest.approx({2: 1.0, 0: 0.0, 1: 0.0})


@pytest.mark.parametrize(
    "fields",
    [{"xtc_threshold": 0.51, "xtc_probability": 1.0}, {"xtc_threshold": 0.1, "xtc_probability": 0.0}],
)
def test_xtc_that_is_off_draws_no_number(fields: dict[str, Any]) -> None:
    row = rows(5)[0]
    plain = SequenceSampler(request(SamplingParams(seed=4)))
    off = SequenceSampler(request(SamplingParams(seed=4, **fields)))
    for _ in range(8):
        assert selected(off, host(row), [1]) == selected(plain, host(row), [1])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_mirostat_token_by_token(version: int, seed: int) -> None:
    tau, eta = [(1.0, 0.3), (2.5, 0.1)][seed % 2]
    params = SamplingParams(
        mirostat=version,
        mirostat_tau=tau,
        mirostat_eta=eta,
        temperature=[1.0, 0.7, 1.8][seed % 3],
        smoothing_factor=[0.0, 0.2][seed % 2],
        rep_pen=[1.0, 1.3][seed // 4],
        # what mirostat takes the place of
        top_k=1,
        top_p=0.1,
        typical=0.1,
        nsigma=0.1,
        dynatemp_range=0.9,
        xtc_probability=1.0,
        xtc_threshold=0.01,
        adaptive_target=0.5,
        seed=seed,
    )
    sampler, stream = SequenceSampler(request(params)), Stream(seed)
    mu = 2 * tau
    for row in rows(seed):
        pairs = oracle.mirostat_narrowed(oracle.chained(row, [1, 2], params), params, mu, VOCABULARY)
        token, found = selected(sampler, host(row), [1, 2])
        assert_same(found, pairs)
        assert token == oracle.drawn(pairs, stream.double())
        p = dict(zip([t for t, _ in pairs], oracle.softmax(pairs), strict=True))[token]
        mu -= eta * (-math.log2(p) - tau)
        assert sampler.selector.mirostat is not None
        assert sampler.selector.mirostat.mu == pytest.approx(mu, abs=1e-4)


@pytest.mark.parametrize(("tau", "kept"), [(0.5, 2), (0.5 - 1e-9, 1)])
def test_mirostat_2_keeps_who_is_exactly_as_surprising_as_allowed(tau: float, kept: int) -> None:
    params = SamplingParams(mirostat=2, mirostat_tau=tau, seed=1)
    _, found = selected(SequenceSampler(request(params)), host([0.0, 0.0]), [1])
    assert len(found) == kept


@pytest.mark.parametrize(("u", "index"), [(0.0, 0), (0.5, 1), (0.5 + 1e-9, 2), (1 - 2**-53, 3)])
def test_a_number_that_a_sum_just_reaches_is_that_token_s(u: float, index: int) -> None:
    assert _draw(candidates_of([0.0] * 4), u) == index


def test_mirostat_1_looks_at_the_first_hundred_candidates() -> None:
    params = SamplingParams(mirostat=1, mirostat_tau=5.0, seed=1)
    counts = []
    for last in (99, 100):
        # a cliff behind the last one, which counts only if both its sides do
        row = [10 - 1.1 * math.log(rank) - (100 if rank > last else 0) for rank in range(1, 400)]
        _, found = selected(SequenceSampler(request(params)), host(row), [1])
        assert_same(found, oracle.mirostat_narrowed(list(enumerate(row)), params, 10.0, len(row)))
        counts.append(len(found))
    assert counts[0] < counts[1]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [-1e300, -5.0, 0.0, 1e300])
@pytest.mark.parametrize("logits", [[0.0], [0.0] * 20, [5.0, -5.0], [1e30, -1e30, 0.0]])
def test_extreme_mirostat_still_draws(version: int, tau: float, logits: list[float]) -> None:
    params = SamplingParams(mirostat=version, mirostat_tau=tau, mirostat_eta=1e10, seed=1)
    sampler = SequenceSampler(request(params))
    for _ in range(4):
        assert 0 <= selected(sampler, host(logits), [0])[0] < len(logits)


def test_mirostat_is_greedy_without_temperature() -> None:
    params = SamplingParams(mirostat=2, temperature=0.0, order=(Sampler.TOP_K,))
    assert selected(SequenceSampler(request(params)), host([1.0, 2.0, 0.0]), [0]) == (1, {1: 1.0})
