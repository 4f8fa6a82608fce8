"""The asyncio side of a real engine: who leaves early ends the work."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from engine.embedding import Embedding, EmbeddingRequest
from engine.engine import Engine
from engine.worker import EngineWorker
from server.client import EngineClient
from server.settings import Settings
from tests.server.live import PATIENCE


class SlowTeller(EngineWorker):
    """The real engine, which tells of no embedding before it has heard an abort."""

    def __init__(self, engine: Engine) -> None:
        self.submitted: list[str] = []
        self.aborted: list[str] = []
        self.heard = threading.Event()
        super().__init__(engine)

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
