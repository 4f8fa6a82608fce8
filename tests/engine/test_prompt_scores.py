"""Probabilities of a prompt's own tokens: against the definition, in chunks, beside other requests."""

import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from engine.config import EngineConfig
from engine.engine import Engine
from engine.types import Event, FinishReason, GenerationRequest, TokenLogprob
from tests.engine.driving import request
from tests.engine.test_not_finite import POISON, poisoned
from tests.support.kernels import ALL
from tests.support.stars import write_star_model

__all__ = ["poisoned"]

ROUNDING = 1e-4


def load(path: Path, **others: Any) -> Engine:
    fields: dict[str, Any] = {"context_length": 256, "device": "cpu", "threads": 1}
    return Engine.load(EngineConfig(path, **fields | others))


def ids(length: int, seed: int) -> list[int]:
    rng = Random(seed)
    return [rng.randrange(3, 250) for _ in range(length)]


def scored(name: str, tokens: list[int], max_tokens: int = 0, **others: Any) -> GenerationRequest:
    fields: dict[str, Any] = {"logprobs": 2, "prompt_logprobs": True, "ignore_eos": True}
    return request(name, tokens, max_tokens, **fields | others)


def serve(engine: Engine, requests: list[GenerationRequest]) -> dict[str, list[Event]]:
    """The events of each request, all of which run together."""
    events: dict[str, list[Event]] = {one.request_id: [] for one in requests}
    for one in requests:
        engine.add(engine.prepare(one))
    while engine.has_work:
        for event in engine.step():
            events[event.request_id].append(event)
        engine.check_integrity()
    snapshot = engine.snapshot()
    assert snapshot.blocks_free == snapshot.blocks_total
    return events


def told(events: list[Event]) -> tuple[TokenLogprob, ...]:
    """What is told of the prompt, in one event."""
    (found,) = [event.prompt_logprobs for event in events if event.prompt_logprobs]
    return found


def logarithms(events: list[Event]) -> list[float]:
    first, *others = told(events)
    assert math.isnan(first.logprob)
    assert first.alternatives == ()
    return [token.logprob for token in others]


@pytest.mark.parametrize("max_tokens", [0, 3])
@pytest.mark.parametrize("kernels", ALL)
def test_they_are_the_models_own(tiny_model: Path, kernels: str, max_tokens: int) -> None:
    engine = load(tiny_model, kernels=kernels)
    tokens = ids(90, seed=1)
    expected = engine.log_likelihoods(tokens, 1)
    events = serve(engine, [scored("x", tokens, max_tokens)])["x"]
    assert [token.token_id for token in told(events)] == tokens
    assert logarithms(events) == pytest.approx(expected.tolist(), abs=ROUNDING)
    assert sum((event.token_ids for event in events), ()) == tuple(
        token for event in serve(engine, [request("y", tokens, max_tokens, ignore_eos=True)])["y"]
        for token in event.token_ids
    )  # fmt: skip
    last = events[-1]
    assert (last.finish, last.usage.completion_tokens if last.usage else None) == (
        FinishReason.LENGTH,
        max_tokens,
    )


def test_the_likeliest_are_told_beside_each(tiny_model: Path) -> None:
    engine = load(tiny_model)
    tokens = ids(40, seed=2)
    found = told(serve(engine, [scored("x", tokens, logprobs=3)])["x"])
    for place in (1, 17, 39):
        (event,) = [
            event
            for event in serve(engine, [request("y", tokens[:place], 1, logprobs=3, ignore_eos=True)])["y"]
            if event.logprobs
        ]
        expected = event.logprobs[0].alternatives
        assert [one.token_id for one in found[place].alternatives] == [one.token_id for one in expected]
        assert [one.logprob for one in found[place].alternatives] == pytest.approx(
            [one.logprob for one in expected], abs=ROUNDING
        )
        assert found[place].raw == engine.tokenizer.piece(tokens[place], render_special=True)
    every = told(serve(engine, [scored("x", tokens, logprobs=10**6)])["x"])
    assert len(every[1].alternatives) == engine.tokenizer.vocab_size


@pytest.mark.parametrize("budget", [16, 37, 512])
@pytest.mark.parametrize("kernels", ALL)
def test_company_and_chunks_change_nothing(tiny_model: Path, kernels: str, budget: int) -> None:
    prompts = {f"{n}": ids(length, seed=n) for n, length in enumerate([1, 2, 33, 70, 120])}
    alone = load(tiny_model, kernels=kernels)
    expected = {
        name: logarithms(serve(alone, [scored(name, tokens)])[name]) for name, tokens in prompts.items()
    }
    plain = [request(f"plain{n}", ids(30, seed=50 + n), 20, ignore_eos=True) for n in range(3)]
    replies = {one.request_id: serve(alone, [one])[one.request_id] for one in plain}
    together = [scored(name, tokens, int(name)) for name, tokens in prompts.items()]
    found = serve(load(tiny_model, kernels=kernels, token_budget=budget), [*plain, *together])
    tolerance = ROUNDING if kernels == "reference" else 0
    for name, logprobs in expected.items():
        assert logarithms(found[name]) == pytest.approx(logprobs, abs=tolerance)
    for name, events in replies.items():
        assert "".join(event.text for event in found[name]) == "".join(event.text for event in events)


def test_cached_tokens_are_scored_too(tiny_model: Path) -> None:
    engine = load(tiny_model)
    tokens = ids(100, seed=4)
    serve(engine, [request("first", tokens, 4, ignore_eos=True)])
    expected = logarithms(serve(load(tiny_model), [scored("x", tokens)])["x"])
    assert logarithms(serve(engine, [scored("x", tokens)])["x"]) == expected


def test_a_prompt_that_lost_its_place_is_scored_from_its_beginning(tiny_model: Path) -> None:
    requests = [scored(f"{n}", ids(100, seed=n), 30) for n in range(4)]
    expected = {name: logarithms(events) for name, events in serve(load(tiny_model), requests).items()}
    crowded = load(tiny_model, kv_tokens=16 * 17)
    found = serve(crowded, requests)
    assert crowded.snapshot().preemptions > 0
    assert {name: logarithms(events) for name, events in found.items()} == expected


def test_few_rows_of_logits_exist_at_a_time(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(tiny_model)
    logits, seen = engine.model.logits, list[int]()

    def counted(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return logits(x)

    monkeypatch.setattr(engine.model, "logits", counted)
    serve(engine, [scored(f"{n}", ids(120, seed=n)) for n in range(3)])
    assert sum(seen) == 3 * 119
    assert max(seen) <= 16


def test_a_damaged_model_has_no_probabilities_and_others_go_on(poisoned: Path) -> None:
    engine = load(poisoned, kernels="reference")
    found = serve(engine, [scored("bad", [5, POISON, 6, 7, 8], 2), scored("good", [5, 6, 7], 2)])
    assert [(event.finish, event.prompt_logprobs) for event in found["bad"]] == [(FinishReason.ERROR, ())]
    assert "not numbers" in (found["bad"][0].error or "")
    assert len(told(found["good"])) == 3


def test_an_end_on_the_way(tiny_model: Path) -> None:
    engine = load(tiny_model, token_budget=16)
    engine.add(engine.prepare(scored("x", ids(100, seed=1), 5)))
    assert engine.step() == []
    engine.abort("x")
    (event,) = engine.step()
    assert (event.finish, event.prompt_logprobs) == (FinishReason.ABORT, ())
    engine.check_integrity()
    assert not engine.has_work


def test_nothing_is_told_that_nobody_asks_for(tiny_model: Path) -> None:
    engine = load(tiny_model)
    for asked in (scored("x", ids(9, seed=1), 2, logprobs=None), request("x", ids(9, seed=1), 2, logprobs=1)):
        assert not any(event.prompt_logprobs for event in serve(engine, [asked])["x"])


def test_each_prompt_is_scored_with_its_own_theta(tiny_model: Path, tmp_path: Path) -> None:
    path, _ = write_star_model(tmp_path / "x.nkat", tiny_model)
    tokens = ids(40, seed=3)
    asked = [scored("with", tokens, theta=True), scored("without", tokens, theta=False)]
    alone = {one.request_id: logarithms(serve(load(path), [one])[one.request_id]) for one in asked}
    assert alone["with"] != alone["without"]
    together = serve(load(path), asked)
    assert {name: logarithms(events) for name, events in together.items()} == alone
