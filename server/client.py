"""The asyncio side of the engine's worker thread.

The engine never waits for a client: events go into an unbounded queue on the event loop, and
whoever reads late gets several at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Protocol

from engine.metrics import Snapshot
from engine.types import ChatPrompt, Event, GenerationRequest, ModelInfo


class Worker(Protocol):
    """What is used of `engine.worker.EngineWorker`, said here so that importing stays light."""

    @property
    def info(self) -> ModelInfo: ...  # noqa: D102
    def prepare(self, request: GenerationRequest) -> GenerationRequest: ...  # noqa: D102
    def submit(self, request: GenerationRequest, on_event: Callable[[Event], None]) -> None: ...  # noqa: D102
    def abort(self, request_id: str) -> None: ...  # noqa: D102
    def snapshot(self) -> Snapshot: ...  # noqa: D102
    def encode(  # noqa: D102
        self, text: str, *, add_bos: bool | None = None, parse_special: bool = True
    ) -> list[int]: ...
    def decode(self, ids: list[int], *, render_special: bool = False) -> str: ...  # noqa: D102
    def render_chat(self, prompt: ChatPrompt) -> str: ...  # noqa: D102


class EngineClient:
    """Requests to the engine as coroutines. Tokenising never runs on the event loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self._worker.info

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

    async def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens shown."""
        return await asyncio.to_thread(self._worker.decode, ids, render_special=True)

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
    return replace(event, text=before.text + event.text, token_ids=before.token_ids + event.token_ids)
