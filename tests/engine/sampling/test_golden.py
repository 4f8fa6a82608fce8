"""The recorded sampler cases of KoboldCpp: the same probabilities, and the same token for the seed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.sampling import SequenceSampler, compile_chain
from engine.types import GenerationRequest, Sampler, SamplingParams, TokenPrompt

_CASES = json.loads((Path(__file__).parents[2] / "golden" / "sampler_vectors.json").read_text())["cases"]
_DIGITS = {"0": Sampler.TOP_K, "2": Sampler.TOP_P, "5": Sampler.TEMPERATURE, "6": Sampler.REP_PEN}


def params_of(recorded: dict[str, Any]) -> SamplingParams:
    fields = {name: value for name, value in recorded.items() if name != "order"}
    if "order" in recorded:
        # the digits of stages that the case leaves neutral are of no concern here
        fields["order"] = tuple(_DIGITS[d] for d in f"{recorded['order']:07d}" if d in _DIGITS)
    return SamplingParams(**fields)


@pytest.mark.parametrize("case", _CASES, ids=[case["name"] for case in _CASES])
def test_recorded(case: dict[str, Any]) -> None:
    params = params_of(case["params"])
    logits = torch.tensor(case["logits"])
    # The program's penalty window begins full of token 0, NKAT's begins empty.
    zeros = max(0, max(1, params.rep_pen_range) - len(case["context_tokens"]))
    context = [0] * zeros + case["context_tokens"]
    candidates = compile_chain(params)(logits, context)
    expected = {int(token): p for token, p in case["final_probs"].items()}
    found = dict(zip(candidates.ids.tolist(), candidates.probabilities().tolist(), strict=True))
    assert found.keys() == expected.keys()
    assert max(abs(found[token] - p) for token, p in expected.items()) <= 2e-5

    request = GenerationRequest("x", TokenPrompt(tuple(context)), 1, params)
    assert SequenceSampler(request, frozenset()).draw(logits, context) == case["picked_id"]


def test_every_supported_sampler_is_among_the_cases() -> None:
    used = {name for case in _CASES for name in case["params"]}
    assert used >= {"temperature", "top_k", "top_p", "min_p", "rep_pen", "rep_pen_slope", "presence_penalty"}
