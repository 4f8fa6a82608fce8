"""Drafters and samplers that know too much, for tests of speculation."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine.batch import Batch
from engine.config import EngineConfig
from engine.engine import Engine
from engine.sampling import Draw, Row, Sampler
from engine.sequence import Sequence
from engine.speculation import Speculator
from engine.speculation.drafter import Drafter
from engine.tokenizer import Tokenizer
from engine.types import FinishReason, GenerationRequest, TokenLogprob


def load(path: Path, **others: Any) -> Engine:
    fields: dict[str, Any] = {"context_length": 256, "device": "cpu", "threads": 1}
    return Engine.load(EngineConfig(path, **fields | others))


class RecordingSampler(Sampler):
    """Keeps what each request has drawn, taken back or not, and the logits it was drawn from."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.drawn: dict[str, list[int]] = defaultdict(list)
        self.logits: dict[str, list[torch.Tensor]] = defaultdict(list)

    def sample(self, logits: torch.Tensor, rows: Many[Row]) -> list[Draw]:
        draws = super().sample(logits, rows)
        for seen, row, draw in zip(logits, rows, draws, strict=True):
            self.drawn[row.request_id].append(draw.token)
            self.logits[row.request_id].append(seen.clone())
        return draws


class Oracle(Drafter):
    """Knows what each request will draw, and is wrong about one token in `1 / error`, or in all of them."""

    worth = 0.25

    def __init__(self, drawn: Mapping[str, Many[int]], error: float, seed: int = 0) -> None:
        self._drawn = drawn
        self._error = error
        self._random = random.Random(seed)

    def draft(self, wanted: Many[tuple[Sequence, int]]) -> list[list[int]]:
        return [self._one(sequence, count) for sequence, count in wanted]

    def take_back(self, sequence: Sequence) -> None:
        pass

    def forget(self, sequence: Sequence) -> None:
        pass

    def check_integrity(self, alive: Mapping[str, Sequence]) -> None:
        pass

    def _one(self, sequence: Sequence, count: int) -> list[int]:
        coming = self._drawn.get(sequence.id, ())[sequence.drawn : sequence.drawn + count]
        draft = [self._random.randrange(250) if self._random.random() < self._error else t for t in coming]
        # Behind the end of a reply there is nothing to know, and all the same something to guess.
        return draft + [self._random.randrange(250) for _ in range(count - len(draft))]


@dataclass
class Told:
    """All that a client hears of one request, but for times."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seed: int = 0


def listen(engine: Engine, told: dict[str, Told]) -> None:
    """One step, its events added up and its books checked."""
    for event in engine.step():
        one = told[event.request_id]
        assert one.finish is None, "an event after the last one"
        one.text += event.text
        one.tokens += event.token_ids
        one.logprobs += event.logprobs
        one.finish = event.finish
        if event.usage is not None:
            one.prompt_tokens, one.completion_tokens = (
                event.usage.prompt_tokens,
                event.usage.completion_tokens,
            )
            one.seed = event.usage.seed
    engine.check_integrity()


def serve(engine: Engine, requests: Iterable[GenerationRequest]) -> dict[str, Told]:
    """Serve requests together until all have ended; afterwards every block is free."""
    told: dict[str, Told] = {}
    for one in requests:
        told[one.request_id] = Told()
        engine.add(engine.prepare(one))
    while engine.has_work:
        listen(engine, told)
    snapshot = engine.snapshot()
    assert snapshot.blocks_free == snapshot.blocks_total
    return told


def with_drafter(engine: Engine, drafter: Drafter, most: int = 8) -> Engine:
    """The engine, with another source of drafts."""
    engine._speculator = Speculator(drafter, most, engine.counters)
    return engine


def widths_of(engine: Engine) -> list[int]:
    """A list that gets the number of tokens in each run of the main model."""
    widths: list[int] = []
    run = engine._runner.run

    def measured(batch: Batch, *, recorded: bool = True) -> torch.Tensor:
        widths.append(len(batch.token_ids))
        return run(batch, recorded=recorded)

    engine._runner.run = measured  # type: ignore[method-assign]
    return widths


def recorded(engine: Engine) -> RecordingSampler:
    """Lets the engine's sampler keep what it draws."""
    sampler = engine._sampler = RecordingSampler(engine.tokenizer)
    return sampler
