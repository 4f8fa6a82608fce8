"""The thread that owns the engine. It takes commands from an inbox and never waits for a client."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Self

from engine.config import EngineConfig
from engine.embedding import Embedding, EmbeddingRequest
from engine.engine import Engine
from engine.errors import BusyError, EngineDeadError
from engine.metrics import Snapshot
from engine.templates.pool import TemplatePool
from engine.types import (
    Backend,
    ChatPrompt,
    Event,
    FinishReason,
    GenerationRequest,
    ThetaStatus,
    Usage,
)

_logger = logging.getLogger(__name__)

OnEvent = Callable[[Event], None]
OnEmbedding = Callable[[Embedding], None]
Command = Callable[[], None]

_CLOSED = "the server is shutting down"


class EngineWorker:
    """An engine in its own thread. All methods may be called from any thread."""

    def __init__(self, engine: Engine, templates: TemplatePool | None = None) -> None:
        """Starts the thread. `templates` are the engine's own, which end with the worker."""
        self.info = engine.info
        self._engine = engine
        self._templates = templates
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._listeners: dict[str, OnEvent] = {}
        self._embedding_listeners: dict[str, OnEmbedding] = {}
        kernels, star = engine.kernels, engine.star
        self.backend = Backend(kernels.place, kernels.name, kernels.threads)
        self._theta = None if star is None else ThetaStatus(star.enabled, star.gamma, star.rank)
        self._snapshot = engine.snapshot()
        self._death: str | None = None
        # Guards `_death` against submissions: after it is set nothing enters the inbox.
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, config: EngineConfig) -> Self:
        """Load the model in this thread, then start the engine's.

        The process that renders chats starts meanwhile. Raises what `Engine.load` raises.
        """
        templates = TemplatePool()
        try:
            with contextlib.suppress(BusyError):
                templates.warm()
            return cls(Engine.load(config, templates), templates)
        except BaseException:
            templates.close()
            raise

    def prepare(self, request: GenerationRequest) -> GenerationRequest:
        """Tokenise and fit a request, in the calling thread; raises `RequestError`."""
        return self._engine.prepare(request)

    def prepare_embedding(self, request: EmbeddingRequest) -> EmbeddingRequest:
        """Check an input and fit it to the context, in the calling thread; raises `RequestError`."""
        return self._engine.prepare_embedding(request)

    def render_chat(self, chat: ChatPrompt) -> str:
        """The text of a chat prompt, in the calling thread; raises `RequestError`, `BusyError`."""
        return self._engine.render_chat(chat)

    def encode(self, text: str, *, add_bos: bool | None = None) -> list[int]:
        """Token ids of a text, in the calling thread; `add_bos` None follows the model's own rule."""
        return self._engine.tokenizer.encode(text, add_bos=add_bos)

    def encode_end(self, text: str, tokens: int) -> list[int]:
        """Token ids of a text's end: more than `tokens`, or all; in the calling thread."""
        return self._engine.tokenizer.encode_end(text, tokens)

    def decode(self, ids: Iterable[int], *, render_special: bool = False) -> str:
        """The text of token ids, in the calling thread."""
        return self._engine.tokenizer.decode(ids, render_special=render_special)

    def submit(self, request: GenerationRequest, on_event: OnEvent) -> None:
        """Queue a prepared request. `on_event` is called in the engine's thread and must not block.

        Raises `EngineDeadError` when the engine has ended.
        """

        def add() -> None:
            self._listeners[request.request_id] = on_event
            self._engine.add(request)

        self._send(add)

    def submit_embedding(self, request: EmbeddingRequest, on_done: OnEmbedding) -> None:
        """Queue a prepared input. `on_done` is called once, in the engine's thread, and must not block.

        Raises `EngineDeadError` when the engine has ended.
        """

        def add() -> None:
            self._embedding_listeners[request.request_id] = on_done
            self._engine.add_embedding(request)

        self._send(add)

    def abort(self, request_id: str) -> None:
        """Ask for the end of a request. An unknown id, or a dead engine, is no error."""
        with contextlib.suppress(EngineDeadError):
            self._send(lambda: self._engine.abort(request_id))

    def set_theta(self, *, enabled: bool | None = None, gamma: float | None = None) -> None:
        """Ask for another theta, as `Engine.set_theta` has it. It counts for requests submitted later.

        Raises `ConfigError` for what the model cannot have, `EngineDeadError` when the engine has ended.
        """
        self._engine.check_theta(gamma)
        self._send(lambda: self._engine.set_theta(enabled=enabled, gamma=gamma))
        assert self._theta is not None, "the check has found theta"
        self._theta = replace(
            self._theta,
            enabled=self._theta.enabled if enabled is None else enabled,
            gamma=self._theta.gamma if gamma is None else gamma,
        )

    @property
    def theta(self) -> ThetaStatus | None:
        """Theta as it was asked for last; None for a model without."""
        return self._theta

    def snapshot(self) -> Snapshot:
        """The counters as of the last step or command."""
        return self._snapshot

    def stop_rendering(self) -> None:
        """End the processes that render chats; present and later calls raise `EngineDeadError`.

        May be called from a signal handler.
        """
        if self._templates is not None:
            self._templates.close()

    def close(self) -> None:
        """End the thread after its present step; requests under way get an error event."""
        self.stop_rendering()
        with self._gate:
            if self._death is None:
                self._inbox.put(self._stop)
                self._death = _CLOSED
        self._thread.join()

    def _send(self, command: Command) -> None:
        with self._gate:
            if self._death is not None:
                raise EngineDeadError(self._death)
            self._inbox.put(command)

    def _stop(self) -> None:
        raise SystemExit

    def _run(self) -> None:
        death = _CLOSED
        try:
            while True:
                self._obey()
                self._report(self._engine.step())
        except SystemExit:
            pass
        except Exception as error:
            _logger.exception("the engine has failed")
            death = f"the engine has failed: {error}"
        finally:
            self._die(death)

    def _obey(self) -> None:
        """Do what the inbox says; wait for it only when there is nothing else to do."""
        if not self._engine.has_work:
            self._inbox.get()()
        # No more than is there now: who submits fast must not keep the others from their next step.
        for _ in range(self._inbox.qsize()):
            self._inbox.get()()

    def _report(self, events: list[Event]) -> None:
        # The snapshot first: who hears of an end must find its blocks free.
        self._snapshot = self._engine.snapshot()
        for event in events:
            self._tell(event)
        for embedding in self._engine.take_embeddings():
            self._tell_embedding(embedding)

    def _tell(self, event: Event) -> None:
        listener = self._listeners[event.request_id]
        if event.finish is not None:
            del self._listeners[event.request_id]
        with _logged(event.request_id):
            listener(event)

    def _tell_embedding(self, embedding: Embedding) -> None:
        listener = self._embedding_listeners.pop(embedding.request_id)
        with _logged(embedding.request_id):
            listener(embedding)

    def _die(self, reason: str) -> None:
        with self._gate:
            self._death = reason
        # Requests that were still in the inbox have listeners to tell, too.
        while not self._inbox.empty():
            command = self._inbox.get_nowait()
            with contextlib.suppress(Exception, SystemExit):
                command()
        for request_id in list(self._listeners):
            self._tell(Event(request_id, finish=FinishReason.ERROR, usage=Usage(0, 0), error=reason))
        for request_id in list(self._embedding_listeners):
            self._tell_embedding(Embedding(request_id, 0, None, reason))


@contextlib.contextmanager
def _logged(request_id: str) -> Iterator[None]:
    """Runs a listener: one whose event loop has closed must not end the others' work."""
    try:
        yield
    except Exception:
        _logger.exception("request %s: its listener failed", request_id)
