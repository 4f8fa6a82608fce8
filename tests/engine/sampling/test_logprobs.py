"""The logarithms that a reply tells: the model's own, and those behind the samplers."""

import math

import pytest
import torch

from engine.sampling import Row
from engine.sampling.logprobs import LEAST, LEAST_FINAL
from engine.types import SamplingParams
from tests.engine.sampling.drawing import VOCABULARY, draw, noise


def test_logprobs_are_the_model_s_own() -> None:
    logits = noise(4)[0]
    own = torch.log_softmax(logits.double(), 0)
    params = SamplingParams(temperature=0.3, top_k=3, logit_bias=((11, 50.0),), seed=1)
    told = draw(logits, params, logprobs=4).logprobs
    assert told is not None
    assert (told.token_id, told.raw) == (11, b"w11")
    assert told.logprob == pytest.approx(float(own[11]), abs=1e-5)
    best = own.argsort(descending=True)[:4].tolist()
    assert [other.token_id for other in told.alternatives] == best
    assert [other.logprob for other in told.alternatives] == pytest.approx(own[best].tolist(), abs=1e-5)
    assert all(other.raw == b"w%d" % other.token_id for other in told.alternatives)


def test_final_logprobs_are_those_behind_the_samplers() -> None:
    logits = torch.full((VOCABULARY,), -50.0)
    logits[:4] = torch.tensor([3.0, 2.0, 1.0, -20.0])
    params = SamplingParams(top_k=4, temperature=0.5, seed=1)
    told = draw(logits, params, logprobs=20, final_logprobs=True).logprobs
    assert told is not None
    expected = torch.log_softmax(torch.tensor([6.0, 4.0, 2.0, -40.0], dtype=torch.float64), 0).tolist()
    assert [other.token_id for other in told.alternatives] == [0, 1, 2, 3]
    assert [o.logprob for o in told.alternatives] == pytest.approx([*expected[:3], LEAST_FINAL], abs=1e-5)
    assert told.logprob == pytest.approx(expected[told.token_id], abs=1e-5)
    assert math.isclose(LEAST_FINAL, math.log(0.0001))


@pytest.mark.parametrize("final", [False, True])
def test_no_alternatives_and_no_logprobs(final: bool) -> None:
    told = draw(noise(5)[0], SamplingParams(seed=1), logprobs=0, final_logprobs=final).logprobs
    assert told is not None
    assert told.alternatives == ()
    assert draw(noise(5)[0], SamplingParams(seed=1), final_logprobs=final).logprobs is None


def test_a_forced_token_is_told_like_any_other() -> None:
    logits = noise(6)[0]
    row = Row("x", [1], forced=9)
    own = draw(logits, SamplingParams(), row, logprobs=1).logprobs
    assert own is not None
    assert own.logprob == pytest.approx(float(torch.log_softmax(logits.double(), 0)[9]), abs=1e-5)
    assert own.alternatives[0].token_id == int(logits.argmax())
    final = draw(logits, SamplingParams(), row, logprobs=1, final_logprobs=True).logprobs
    assert final is not None
    assert (final.logprob, final.alternatives[0].token_id) == (0.0, 9)


def test_what_is_impossible_has_a_finite_logarithm() -> None:
    logits = noise(7)[0]
    logits[9] = -math.inf
    told = draw(logits, SamplingParams(), Row("x", [1], forced=9), logprobs=0).logprobs
    assert told is not None
    assert told.logprob == LEAST
