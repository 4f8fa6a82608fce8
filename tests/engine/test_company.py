"""Sixteen requests with sixteen different settings, together, give what each gives alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.types import (
    GbnfGrammar,
    GenerationRequest,
    JsonGrammar,
    Sampler,
    SamplingParams,
    Tag,
    TaggedGrammar,
    ThinkingBudget,
)
from tests.engine.driving import Reply, request, run

LIST = GbnfGrammar('root ::= ("- " [a-z]{1,6} "\\n"){2,4}')
OBJECT = JsonGrammar(
    '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}, '
    '"age": {"type": "integer"}}, "required": ["name", "age"]}'
)
ORDER = (Sampler.TEMPERATURE, Sampler.TOP_P, Sampler.REP_PEN)
TOOL = TaggedGrammar("<call>", (Tag("<call>f:", '{"type": "boolean"}', "</call>"),), required=True)


def settings() -> list[GenerationRequest]:
    """One of each kind, on prompts of different lengths."""
    base = SamplingParams(temperature=1.2)
    kinds: list[tuple[SamplingParams, dict[str, object]]] = [
        (SamplingParams(temperature=0.0), {}),
        (base, {"grammar": LIST}),
        (base, {"grammar": OBJECT}),
        (base, {"grammar": TOOL}),
        (replace(base, mirostat=1, mirostat_tau=3.0), {}),
        (replace(base, mirostat=2, mirostat_tau=4.0), {"banned_phrases": ("e", "t")}),
        (replace(base, top_k=20, top_p=0.9, min_p=0.01, rep_pen=1.2), {}),
        (replace(base, dry_multiplier=0.8, dry_sequence_breakers=("\n", "e")), {}),
        (replace(base, xtc_probability=0.6, xtc_threshold=0.05), {}),
        (replace(base, dynatemp_range=0.6, smoothing_factor=0.3, smoothing_curve=1.5), {}),
        (replace(base, tfs=0.9, typical=0.9, top_a=0.1), {"banned_phrases": ("a", "io")}),
        (replace(base, nsigma=1.5, presence_penalty=0.5, frequency_penalty=0.3), {"logprobs": 3}),
        (replace(base, adaptive_target=0.3), {"stop": ("th", "qu")}),
        (replace(base, order=ORDER, rep_pen=1.3, top_p=0.8), {}),
        (replace(base, logit_bias=((40, 5.0), (41, -100.0))), {"ban_eos": True}),
        (base, {"thinking": ThinkingBudget(4, "a", "z", "...z"), "logprobs": 2, "final_logprobs": True}),
    ]  # fmt: skip
    found = []
    for number, (sampling, others) in enumerate(kinds):
        ids = [3 + (7 * number + 11 * place) % 240 for place in range(1 + 5 * number)]
        seeded = replace(sampling, seed=number + 1)
        found.append(request(f"{number}", ids, 32, seeded, **others))
    return found


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Engine:
    config = EngineConfig(tiny_model, context_length=256, device="cpu", threads=1, max_sequences=16)
    return Engine.load(config)


def test_sixteen_together_as_alone(engine: Engine) -> None:
    requests = settings()
    assert len(requests) == 16
    together = run(engine, requests)
    assert engine.snapshot().requests_finished == 16
    alone: dict[str, Reply] = {}
    for one in requests:
        alone |= run(engine, [one])
    for one in requests:
        name = one.request_id
        assert together[name].text == alone[name].text, one
        assert together[name].tokens == alone[name].tokens, one
        assert together[name].finish is alone[name].finish, one
    texts = [reply.text for reply in together.values()]
    assert len(set(texts)) == 16, "settings that change nothing test nothing"


def test_cancelled_company_changes_nothing(engine: Engine) -> None:
    requests = settings()
    expected = run(engine, [requests[1]])["1"]
    for one in requests:
        engine.add(engine.prepare(one))
    replies = {one.request_id: Reply() for one in requests}
    for number in range(40):
        if number < 16 and number != 1:
            engine.abort(f"{number}")
        for event in engine.step():
            reply = replies[event.request_id]
            reply.text += event.text
            reply.tokens += event.token_ids
        engine.check_integrity()
    while engine.has_work:
        for event in engine.step():
            replies[event.request_id].text += event.text
            replies[event.request_id].tokens += event.token_ids
    assert replies["1"].text == expected.text
