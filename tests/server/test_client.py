"""The asyncio side of the engine's thread, around a real engine."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Any

import pytest

from engine.embedding import Embedding, EmbeddingRequest
from engine.engine import Engine
from engine.templates.pool import TemplatePool
from engine.types import Event, GenerationRequest, SamplingParams, TextPrompt
from engine.worker import EngineWorker
from server.client import EngineClient
from server.settings import Settings
from tests.server.live import PATIENCE, wait_for


class SlowTeller(EngineWorker):
    """The real engine, which tells of no embedding before it has heard an abort."""

    def __init__(self, engine: Engine, templates: TemplatePool | None = None) -> None:
        self.submitted: list[str] = []
        self.aborted: list[str] = []
        self.heard = threading.Event()
        super().__init__(engine, templates)

    def submit_embedding(self, request: EmbeddingRequest, on_done: Callable[[Embedding], None]) -> None:
        def tell(embedding: Embedding) -> None:
            assert self.heard.wait(PATIENCE)
            on_done(embedding)

        self.submitted.append(request.request_id)
        super().submit_embedding(request, tell)

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        super().abort(request_id)
        self.heard.set()


@pytest.fixture
def worker(tiny_settings: Settings) -> Iterator[SlowTeller]:
    worker = SlowTeller.start(tiny_settings.engine_config())
    yield worker
    worker.heard.set()
    worker.close()


def test_leaving_an_embedding_ends_it(worker: SlowTeller) -> None:
    async def leave() -> None:
        embedding = asyncio.create_task(EngineClient(worker).embed(EmbeddingRequest("e", (5, 6, 7))))
        while not worker.submitted:
            await asyncio.sleep(0)
        embedding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await embedding

    asyncio.run(leave())
    assert worker.aborted == worker.submitted == ["e"]


def test_an_embedding_that_is_heard_of_is_not_aborted(worker: SlowTeller) -> None:
    worker.heard.set()
    embedding = asyncio.run(EngineClient(worker).embed(EmbeddingRequest("e", (5, 6, 7))))
    assert embedding.vector is not None
    assert worker.aborted == []


def test_events_that_came_together_are_one(tiny_worker: EngineWorker) -> None:
    given = GenerationRequest(
        "x", TextPrompt("hello"), 6, SamplingParams(seed=1), ignore_eos=True, logprobs=2
    )

    async def read(*, late: bool) -> list[Event]:
        client = EngineClient(tiny_worker)
        finished = tiny_worker.snapshot().requests_finished
        events = client.events((await client.prepare(given),), lambda _: None)
        await anext(events)
        if late:
            # Nothing else runs on this loop meanwhile: the events wait for it.
            wait_for(lambda: tiny_worker.snapshot().requests_finished > finished)
        return [event async for event in events]

    at_once, late = asyncio.run(read(late=False)), asyncio.run(read(late=True))
    assert len(late) <= 2, "the last one may come a moment after it is counted"
    for found in (at_once, late):
        assert len(joined(found, "token_ids")) == len(joined(found, "logprobs")) == 6
    for part in ("text", "token_ids", "logprobs", "finish"):
        assert joined(late, part) == joined(at_once, part)


def joined(events: list[Event], part: str) -> Any:
    """What all events together say; of how it ends what the last one says."""
    parts = [getattr(event, part) for event in events]
    return parts[-1] if part == "finish" else reduce(add, parts)
