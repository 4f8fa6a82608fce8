"""Settings at the edge of what numbers can be: the same choice, whatever part of the engine makes it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from engine.native import open_library
from engine.sampling.device_logits import DeviceLogits
from engine.sampling.row import Row
from engine.sampling.sequence_sampler import SequenceSampler
from engine.sampling.validation import check_params
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.types import SamplingParams
from tests.engine.sampling import extremes
from tests.engine.sampling.rows import host, request, selected

Made = tuple[list[int], dict[int, float]]


def on_device(row: list[float]) -> VocabularyLogits:
    return DeviceLogits.of(torch.tensor(row))


def made(
    params: SamplingParams, row: list[float], raw: Callable[[list[float]], VocabularyLogits], count: int = 3
) -> Made:
    """So many tokens, each behind those in front of it, and the probabilities of the last."""
    sampler, tokens = SequenceSampler(request(params)), list(extremes.TOKENS)
    found: dict[int, float] = {}
    for _ in range(count):
        token, found = selected(sampler, raw(row), tokens)
        tokens.append(token)
    assert all(math.isfinite(p) for p in found.values()), found
    assert sum(found.values()) == pytest.approx(1)
    assert all(0 <= token < len(row) for token in tokens[-count:])
    return tokens[-count:], found


def without_library(params: SamplingParams, row: list[float], count: int = 3) -> Made:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.native.shortlist.open_library", lambda: None)
        return made(params, row, host, count)


@settings(max_examples=150, deadline=None)
@given(extremes.fields, extremes.rows)
def test_every_way_takes_the_same_tokens(given_fields: dict[str, Any], row: list[float]) -> None:
    params = SamplingParams(**given_fields)
    check_params(params)
    tokens, probabilities = without_library(params, row)
    for other in (made(params, row, host), made(params, row, on_device)):
        assert other[0] == tokens
        # What lies beyond every draw may be left out by one and kept by another.
        for token in other[1].keys() | probabilities.keys():
            assert other[1].get(token, 0) == pytest.approx(probabilities.get(token, 0), abs=1e-6)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            lambda params: made(params, extremes.ROW, host, 1),
            marks=pytest.mark.skipif(open_library() is None, reason="the compiled library is not built"),
        ),
        lambda params: without_library(params, extremes.ROW, 1),
        lambda params: made(params, extremes.ROW, on_device, 1),
    ],
    ids=["library", "numpy", "torch"],
)
@pytest.mark.parametrize(("given_fields", "limit"), extremes.LIMITS)
@pytest.mark.parametrize("cut", [0, 5])
def test_a_limit_means_what_it_comes_to(
    given_fields: Mapping[str, Any], limit: Any, way: Callable[[SamplingParams], Made], cut: int
) -> None:
    # With a cut the library draws at once.
    found = way(extremes.params_of({"top_k": cut} | dict(given_fields)))[1]
    if limit is not None:
        assert {token: p for token, p in found.items() if p > 1e-9} == pytest.approx(limit, abs=1e-6)


def test_a_large_penalty_excludes_nothing() -> None:
    """Where all tokens are seen the likeliest is still the likeliest, and none is a last resort."""
    for raw in (host, on_device):
        for penalty in (1e300, math.inf):
            params = SamplingParams(rep_pen=penalty, temperature=0.0, logit_bias=((0, -1e30), (1, -2.0)))
            found = selected(SequenceSampler(request(params)), raw([-1.0, -2.0, 0.5]), [0, 1, 2])
            assert found == (2, {2: 1.0})
            kept = SequenceSampler(request(SamplingParams(rep_pen=penalty, seed=1)))
            logits = kept._changed(raw([-1e20, -2.0, -np.inf]), Row("x", [0, 1, 2]))
            assert np.isfinite(logits.take(np.array([0, 1]))).all()
            assert logits.take(np.array([2]))[0] == -np.inf
