"""The asyncio side of the engine's worker thread.

The engine never waits for a client: events go into an unbounded queue on the event loop, and
whoever reads late gets several at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Protocol

from engine.embedding import Embedding, EmbeddingRequest
from engine.errors import EngineDeadError
from engine.metrics import Snapshot
from engine.types import Backend, ChatPrompt, Event, GenerationRequest, ModelInfo, ThetaStatus


class Worker(Protocol):
    """What is used of `engine.worker.EngineWorker`, said here so that importing stays light."""

    @property
    def info(self) -> ModelInfo: ...  # noqa: D102
    @property
    def backend(self) -> Backend: ...  # noqa: D102
    @property
    def theta(self) -> ThetaStatus | None: ...  # noqa: D102
    def set_theta(self, *, enabled: bool | None = None, gamma: float | None = None) -> None: ...  # noqa: D102
    def prepare(self, request: GenerationRequest) -> GenerationRequest: ...  # noqa: D102
    def submit(self, request: GenerationRequest, on_event: Callable[[Event], None]) -> None: ...  # noqa: D102
    def abort(self, request_id: str) -> None: ...  # noqa: D102
    def snapshot(self) -> Snapshot: ...  # noqa: D102
    def encode(  # noqa: D102
        self, text: str, *, add_bos: bool | None = None, parse_special: bool = True
    ) -> list[int]: ...
    def decode(self, ids: list[int], *, render_special: bool = False) -> str: ...  # noqa: D102
    def render_chat(self, prompt: ChatPrompt) -> str: ...  # noqa: D102
    def prepare_embedding(self, request: EmbeddingRequest) -> EmbeddingRequest: ...  # noqa: D102
    def submit_embedding(  # noqa: D102
        self, request: EmbeddingRequest, on_done: Callable[[Embedding], None]
    ) -> None: ...


class EngineClient:
    """Requests to the engine as coroutines. Tokenising never runs on the event loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self._worker.info

    @property
    def backend(self) -> Backend:
        """What the model computes with."""
        return self._worker.backend

    @property
    def theta(self) -> ThetaStatus | None:
        """Theta as it was asked for last; None for a model without."""
        return self._worker.theta

    def set_theta(self, *, enabled: bool | None = None, gamma: float | None = None) -> None:
        """Switch theta or change gamma for all that is submitted later; None leaves that as it is.

        Does not block. Raises `ConfigError` for what the model cannot have, `EngineDeadError`.
        """
        self._worker.set_theta(enabled=enabled, gamma=gamma)

    def snapshot(self) -> Snapshot:
        """The engine's counters at this moment."""
        return self._worker.snapshot()

    def abort(self, request_id: str) -> None:
        """End a request; its last event says so."""
        self._worker.abort(request_id)

    async def prepare(self, request: GenerationRequest) -> GenerationRequest:
        """The request with its prompt as tokens. Raises `RequestError`."""
        return await asyncio.to_thread(self._worker.prepare, request)

    async def encode(self, text: str, *, add_bos: bool | None) -> list[int]:
        """Token ids of `text`; `add_bos` None follows the model's own rule."""
        return await asyncio.to_thread(self._worker.encode, text, add_bos=add_bos)

    async def decode(self, ids: list[int], *, render_special: bool = True) -> str:
        """The text of token ids. Raises `RequestError` for an id that the model does not have."""
        return await asyncio.to_thread(self._worker.decode, ids, render_special=render_special)

    def render_chat(self, prompt: ChatPrompt) -> str:
        """The text of a chat prompt, in the calling thread. Raises `RequestError`."""
        return self._worker.render_chat(prompt)

    async def embed(self, request: EmbeddingRequest) -> Embedding:
        """The vector of one input; leaving early ends the work. Raises `RequestError`, `EngineDeadError`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Embedding] = loop.create_future()

        def keep(embedding: Embedding) -> None:
            if not done.done():
                done.set_result(embedding)

        def deliver(embedding: Embedding) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(keep, embedding)

        prepared = await asyncio.to_thread(self._worker.prepare_embedding, request)
        self._worker.submit_embedding(prepared, deliver)
        try:
            embedding = await done
        except asyncio.CancelledError:
            self._worker.abort(request.request_id)
            raise
        if embedding.vector is None:
            raise EngineDeadError(embedding.error or "the embedding was aborted")
        return embedding

    async def events(self, requests: tuple[GenerationRequest, ...]) -> AsyncGenerator[Event, None]:
        """The news of all `requests`, which must be prepared, until each has had its last event.

        The first event is empty and says that the engine has taken them all. Events of one request
        that arrived together are joined. However this ends, no request outlives it. Raises
        `EngineDeadError`.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Event] = asyncio.Queue()

        def deliver(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, event)

        unfinished: set[str] = set()
        try:
            for request in requests:
                self._worker.submit(request, deliver)
                unfinished.add(request.request_id)
            yield Event(requests[0].request_id)
            while unfinished:
                for event in await _drain(queue):
                    if event.finish is not None:
                        unfinished.discard(event.request_id)
                    yield event
        finally:
            for request_id in unfinished:
                self._worker.abort(request_id)


async def _drain(queue: "asyncio.Queue[Event]") -> list[Event]:
    """Everything that is there, at least one; the events of one request joined."""
    found = {(first := await queue.get()).request_id: first}
    while not queue.empty():
        event = queue.get_nowait()
        before = found.get(event.request_id)
        found[event.request_id] = event if before is None else _join(before, event)
    return list(found.values())


def _join(before: Event, event: Event) -> Event:
    return replace(
        event,
        text=before.text + event.text,
        token_ids=before.token_ids + event.token_ids,
        logprobs=before.logprobs + event.logprobs,
    )
