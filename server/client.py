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
from engine.types import (
    Backend,
    ChatPrompt,
    Event,
    GenerationRequest,
    ModelInfo,
    Prompt,
    TextPrompt,
    ThetaStatus,
    TokenPrompt,
)
from server.pools import WorkPool


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
    def encode(self, text: str, *, add_bos: bool | None = None) -> list[int]: ...  # noqa: D102
    def encode_end(self, text: str, tokens: int) -> list[int]: ...  # noqa: D102
    def decode(self, ids: list[int], *, render_special: bool = False) -> str: ...  # noqa: D102
    def render_chat(self, prompt: ChatPrompt) -> str: ...  # noqa: D102
    def stop_rendering(self) -> None: ...  # noqa: D102
    def prepare_embedding(self, request: EmbeddingRequest) -> EmbeddingRequest: ...  # noqa: D102
    def submit_embedding(  # noqa: D102
        self, request: EmbeddingRequest, on_done: Callable[[Embedding], None]
    ) -> None: ...


SHORT_TEXT = 1 << 14
"""Characters of a text that takes a millisecond or two to tokenise."""
WAITING_PER_CLIENT = 32
"""Calls of one client that may wait for a thread."""


class EngineClient:
    """Requests to the engine as coroutines. Belongs to one event loop.

    Tokenising, rendering and compiling run in pools of their own, short texts apart from long ones and from
    grammars, so that no client's large request delays another's small one.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._short = WorkPool("short-texts", 2, WAITING_PER_CLIENT)
        self._long = WorkPool("long-texts", 1, WAITING_PER_CLIENT)
        self._grammars = WorkPool("grammars", 1, WAITING_PER_CLIENT)
        self._templates = WorkPool("templates", 2, WAITING_PER_CLIENT)

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
        """The request with its prompt as tokens. Raises `RequestError`, `BusyError`."""
        pool = self._pool(request.prompt) if request.grammar is None else self._grammars
        return await pool.run(self._worker.prepare, request)

    async def encode(self, text: str, *, add_bos: bool | None) -> list[int]:
        """Token ids of `text`; `add_bos` None follows the model's own rule. Raises `BusyError`."""
        return await self._by_size(len(text)).run(self._worker.encode, text, add_bos=add_bos)

    async def encode_end(self, text: str, tokens: int) -> list[int]:
        """Token ids of the end of `text`: more than `tokens`, or all. Raises `BusyError`."""
        return await self._by_size(len(text)).run(self._worker.encode_end, text, tokens)

    async def decode(self, ids: list[int], *, render_special: bool = True) -> str:
        """The text of token ids. Raises `RequestError` for an id outside the vocabulary, `BusyError`."""
        return await self._by_size(len(ids)).run(self._worker.decode, ids, render_special=render_special)

    async def render_chat(self, prompt: ChatPrompt) -> str:
        """The text of a chat prompt. Raises `RequestError`, `BusyError`."""
        return await self._templates.run(self._worker.render_chat, prompt)

    def render_chat_now(self, prompt: ChatPrompt) -> str:
        """As `render_chat`, but in the calling thread; for the start of the server."""
        return self._worker.render_chat(prompt)

    def stop_rendering(self) -> None:
        """End all renderings, now and later. May be called from a signal handler."""
        self._worker.stop_rendering()

    def _pool(self, prompt: Prompt) -> WorkPool:
        match prompt:
            case TextPrompt():
                size = len(prompt.text) + len(prompt.memory)
            case TokenPrompt():
                size = len(prompt.ids)
            case ChatPrompt():
                return self._templates
        return self._by_size(size)

    def _by_size(self, size: int) -> WorkPool:
        """The pool for a text of `size` characters or token ids."""
        return self._short if size <= SHORT_TEXT else self._long

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

        prepared = await self._by_size(len(request.ids)).run(self._worker.prepare_embedding, request)
        self._worker.submit_embedding(prepared, deliver)
        try:
            embedding = await done
        except asyncio.CancelledError:
            self._worker.abort(request.request_id)
            raise
        if embedding.vector is None:
            raise EngineDeadError(embedding.error or "the embedding was aborted")
        return embedding

    async def events(
        self, requests: tuple[GenerationRequest, ...], arrived: Callable[[Event], None]
    ) -> AsyncGenerator[Event, None]:
        """The news of all `requests`, which must be prepared, until each has had its last event.

        The first event is empty and says that the engine has taken them all. Events of one request
        that arrived together are joined. `arrived` is called with each event at once, also where nobody asks
        for the next one. However this ends, no request outlives it. Raises `EngineDeadError`.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Event] = asyncio.Queue()

        def keep(event: Event) -> None:
            arrived(event)
            queue.put_nowait(event)

        def deliver(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(keep, event)

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
        progress=event.progress or before.progress,
        prompt_logprobs=before.prompt_logprobs + event.prompt_logprobs,
    )
