"""Requests made short, and the loop that a worker would run, for tests of the engine."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.engine import Engine
from engine.types import FinishReason, GenerationRequest, SamplingParams, TextPrompt, TokenPrompt, Usage

GREEDY = SamplingParams(temperature=0.0, seed=1)


def request(
    request_id: str,
    prompt: str | Iterable[int],
    max_tokens: int = 16,
    sampling: SamplingParams = GREEDY,
    **others: Any,
) -> GenerationRequest:
    """A request for text or for token ids; greedy unless told otherwise."""
    given = TextPrompt(prompt) if isinstance(prompt, str) else TokenPrompt(tuple(prompt))
    return GenerationRequest(request_id, given, max_tokens, sampling, **others)


@dataclass
class Reply:
    """What the events of one request came to."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    usage: Usage | None = None


def run(engine: Engine, requests: Iterable[GenerationRequest]) -> dict[str, Reply]:
    """Serve requests together until the engine is idle, checking its books after every step."""
    replies: dict[str, Reply] = {}
    for one in requests:
        replies[one.request_id] = Reply()
        engine.add(engine.prepare(one))
    drain(engine, replies)
    return replies


def drain(engine: Engine, replies: dict[str, Reply]) -> None:
    """Step until nothing is left to do; afterwards every block must be free."""
    while engine.has_work:
        step(engine, replies)
    snapshot = engine.snapshot()
    assert snapshot.blocks_free == snapshot.blocks_total
    assert (snapshot.running, snapshot.waiting) == (0, 0)


def step(engine: Engine, replies: dict[str, Reply]) -> None:
    """One step, its events added to the replies."""
    for event in engine.step():
        reply = replies[event.request_id]
        assert reply.finish is None, "an event after the last one"
        assert (event.finish is None) == (event.usage is None)
        reply.text += event.text
        reply.tokens += event.token_ids
        reply.finish, reply.usage = event.finish, event.usage
    engine.check_integrity()
