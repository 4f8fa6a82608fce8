"""The recorded sampler cases of KoboldCpp 1.76: the same probabilities, the same token, the same mu."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.sampling.breakers import Breakers
from engine.sampling.sequence_sampler import SequenceSampler
from engine.types import GenerationRequest, Sampler, SamplingParams, TokenPrompt
from tests.engine.sampling.rows import host, one_token_breaker, selected

_CASES = json.loads((Path(__file__).parents[2] / "golden" / "sampler_vectors.json").read_text())["cases"]
_DIGITS = {
    "0": Sampler.TOP_K,
    "1": Sampler.TOP_A,
    "2": Sampler.TOP_P,
    "3": Sampler.TFS,
    "4": Sampler.TYPICAL,
    "5": Sampler.TEMPERATURE,
    "6": Sampler.REP_PEN,
}
_RENAMED = {"tau": "mirostat_tau", "eta": "mirostat_eta"}


def params_of(recorded: dict[str, Any]) -> SamplingParams:
    fields = {_RENAMED.get(name, name): value for name, value in recorded.items()}
    fields.pop("breaker", None)
    if "order" in fields:
        fields["order"] = tuple(_DIGITS[digit] for digit in f"{fields['order']:07d}")
    return SamplingParams(**fields)


def breakers_of(recorded: dict[str, Any], vocab_size: int) -> Breakers | None:
    return one_token_breaker(recorded["breaker"], vocab_size) if "breaker" in recorded else None


@pytest.mark.parametrize("case", _CASES, ids=[case["name"] for case in _CASES])
def test_recorded(case: dict[str, Any]) -> None:
    params = params_of(case["params"])
    logits = np.array(case["logits"], np.float32)
    context = case["context_tokens"]
    if params.dry_multiplier <= 0:
        # The program's penalty window begins full of token 0, NKAT's begins empty.
        context = [0] * max(0, max(1, params.rep_pen_range) - len(context)) + context
    request = GenerationRequest("x", TokenPrompt((0,)), 1, params)
    sampler = SequenceSampler(request, breakers=breakers_of(case["params"], len(logits)))
    token, found = selected(sampler, host(logits), context)
    expected = {int(token): p for token, p in case["final_probs"].items()}
    assert found.keys() == expected.keys()
    assert max(abs(found[token] - p) for token, p in expected.items()) <= 2e-5
    assert token == case["picked_id"]
    if case["mirostat_mu_after"] is not None:
        assert sampler.selector.mirostat is not None
        assert sampler.selector.mirostat.mu == pytest.approx(case["mirostat_mu_after"], abs=1e-5)


def test_every_sampler_of_the_program_is_among_the_cases() -> None:
    used = {name for case in _CASES for name in case["params"]}
    assert used >= {
        *("temperature", "top_k", "top_p", "min_p", "top_a", "tfs", "typical", "order"),
        *("rep_pen", "rep_pen_range", "rep_pen_slope", "presence_penalty"),
        *("dynatemp_range", "dynatemp_exponent", "smoothing_factor", "mirostat", "tau"),
        *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "breaker"),
        *("xtc_threshold", "xtc_probability"),
    }
    assert len(_CASES) == 86
