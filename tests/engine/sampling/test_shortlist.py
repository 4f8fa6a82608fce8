"""The draw in one call of the compiled library, against the steps one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.native import open_library
from engine.native.shortlist import MOST_WANTED, Tail, draw, shortlist
from engine.sampling.chain import compile_chain
from engine.sampling.sequence_sampler import SequenceSampler
from engine.sampling.truncation import min_p_distance
from engine.types import Sampler, SamplingParams
from tests.engine.sampling.rows import host, request, selected

pytestmark = pytest.mark.skipif(open_library() is None, reason="the compiled library is not built")

rows = st.lists(
    st.one_of(st.floats(-20, 20, width=32), st.sampled_from([0.0, -0.0, 1.5, float("-inf")])),
    min_size=1,
    max_size=70,
)


@settings(max_examples=300, deadline=None)
@given(rows, st.integers(1, 80))
def test_the_largest_in_order(row: list[float], wanted: int) -> None:
    values = np.array(row, np.float32)
    found = shortlist(values, 1e30, wanted)
    assert found is not None
    order = [int(i) for i in np.lexsort((np.arange(len(values)), -values)) if values[i] > -np.inf][:wanted]
    assert found[0].tolist() == order
    assert found[1].tolist() == values[order].tolist()


def test_a_large_vocabulary() -> None:
    values = np.random.default_rng(0).normal(size=50_001).astype(np.float32)
    found = shortlist(values, 1e30, MOST_WANTED)
    assert found is not None
    assert found[0].tolist() == np.argsort(-values, kind="stable")[:MOST_WANTED].tolist()


@pytest.mark.parametrize("place", [0, 17, 40])
@pytest.mark.parametrize("value", [np.nan, np.inf, 2e30])
def test_what_is_not_sound_is_not_listed(place: int, value: float) -> None:
    values = np.zeros(41, np.float32)
    values[place] = value
    assert shortlist(values, 1e30, 3) is None
    assert shortlist(np.zeros(80, np.float32)[::2], 1e30, 3) is None


tails = st.fixed_dictionaries(
    {
        "top_k": st.integers(1, 60),
        "top_p": st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5, 1.0, 2.0]),
        "temperature": st.sampled_from([0.2, 0.7, 1.0, 3.0]),
        "rep_pen": st.sampled_from([1.0, 1.3]),
        "logit_bias": st.sampled_from([(), ((3, 2.0), (5, -100.0))]),
        "seed": st.integers(1, 10**6),
    }
)


@settings(max_examples=300, deadline=None)
@given(tails, rows)
def test_one_call_draws_as_the_steps_do(fields: dict[str, Any], row: list[float]) -> None:
    row = [*row, 1.0] + [-30.0] * 8
    params = SamplingParams(**fields)
    assert compile_chain(params).tail is not None
    tokens = [1, 2, 3]
    at_once = selected(SequenceSampler(request(params)), host(row), tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.native.shortlist.open_library", lambda: None)
        step_by_step = selected(SequenceSampler(request(params)), host(row), tokens)
    # rounding may decide where a sum of probabilities just reaches a limit
    if at_once[1].keys() == step_by_step[1].keys():
        assert at_once[1] == pytest.approx(step_by_step[1], abs=1e-6)
        assert at_once[0] == step_by_step[0]
    else:
        assert len(at_once[1].keys() ^ step_by_step[1].keys()) == 1
        assert 0 < params.top_p < 1


@pytest.mark.parametrize(
    ("tail", "u", "kept", "drawn"),
    [
        (Tail(top_p=0.5), 0.5, 2, 0),
        (Tail(top_p=0.5 + 1e-9), 0.5, 3, 1),
        (Tail(top_p=0.5 - 1e-9), 0.99, 2, 1),
        (Tail(), 0.5, 4, 1),
        (Tail(), 0.5 + 1e-9, 4, 2),
        (Tail(), 0.0, 4, 0),
        (Tail(), 1 - 2**-53, 4, 3),
    ],
)
def test_exactly_at_the_limit(tail: Tail, u: float, kept: int, drawn: int) -> None:
    found = draw(np.zeros(4, np.float32), 1e30, 4, tail, u)
    assert found is not None
    assert (len(found[0]), found[2]) == (kept, drawn)


def test_exactly_at_the_distance() -> None:
    distance = min_p_distance(0.25)
    least = np.float32(3) - distance
    values = np.array([3.0, least, np.nextafter(least, np.float32(-9))], np.float32)
    found = draw(values, 1e30, 3, Tail(distance=float(distance)), 0.0)
    assert found is not None
    assert found[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.0, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.96, 4), (1.0, 4)]
)
def test_the_token_that_reaches_top_p_is_the_last(top_p: float, kept: int) -> None:
    values = np.log(np.array([0.3, 0.5, 0.05, 0.15], np.float32))
    found = draw(values, 1e30, 4, Tail(top_p=top_p), 0.0)
    assert found is not None
    assert found[0].tolist() == [1, 0, 3, 2][:kept]


HOT_FIRST = (Sampler.TOP_K, Sampler.TEMPERATURE, Sampler.TOP_P)


@pytest.mark.parametrize(
    ("fields", "fused"),
    [
        ({"top_k": 100, "top_p": 0.92, "temperature": 0.7}, True),
        ({"top_k": 512}, True),
        ({"top_k": 513}, False),
        ({}, False),
        ({"top_k": 9, "temperature": 0.0}, False),
        ({"top_k": 9, "min_p": 0.1, "temperature": 0.5}, True),
        ({"top_k": 9, "nsigma": 1.0}, False),
        ({"top_k": 9, "smoothing_factor": 0.1, "temperature": 0.5}, False),
        ({"top_k": 9, "dynatemp_range": 0.1}, False),
        ({"top_k": 9, "typical": 0.9}, False),
        ({"top_k": 9, "rep_pen": 1.1}, True),
        ({"top_k": 9, "top_p": 0.9, "temperature": 0.7, "order": HOT_FIRST}, False),
        ({"top_k": 9, "top_p": 0.9, "order": (Sampler.TOP_P, Sampler.TOP_K)}, False),
        ({"top_k": 9, "mirostat": 2}, False),
    ],
)  # fmt: skip
def test_which_chains_end_as_usual(fields: dict[str, Any], fused: bool) -> None:
    assert (compile_chain(SamplingParams(**fields)).tail is not None) is fused


@pytest.mark.parametrize("fields", [{"xtc_probability": 0.5}, {"adaptive_target": 0.3, "top_p": 0.9}])
def test_what_chooses_otherwise_is_not_cut_short(fields: dict[str, Any]) -> None:
    sampler = SequenceSampler(request(SamplingParams(top_k=9, **fields)))
    assert not sampler.selector.plain
