"""What the server does for its clients, whatever they speak: generate, look, stop.

Independent of HTTP. Lives on one event loop and needs no locks.
"""

import asyncio
import logging
import math
import time
from array import array
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from engine.embedding import EmbeddingRequest, Pooling
from engine.errors import BusyError, EngineDeadError, RequestError, failure
from engine.types import (
    ChatPrompt,
    Event,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    TokenLogprob,
    TokenPrompt,
    Usage,
)
from server.client import EngineClient
from server.guesses import GuessLimit
from server.stops import KeylessStops

_logger = logging.getLogger(__name__)

LONGEST_COUNTED = 1 << 20
"""Characters of a text that is tokenised as a whole: a quarter of a second of one core."""
CHARACTERS_PER_TOKEN = 16
"""Where a context is long: texts of more characters for each of its tokens are refused."""
REMEMBERED_TEXTS = 64
"""Texts of finished generations that stay available to clients which lost their connection."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks: the name the client gave the request, its address, and the web page, if it is a stranger's.

    A request with a genkey is found by whoever names it from the same address or with the server's key
    (`has_key`). Without a genkey, a client speaks of its own keyless requests: those from the same address,
    and a stranger's page of those that it has sent itself.
    """

    address: str = ""
    genkey: str = ""
    has_key: bool = False
    page: str = ""

    def means(self, other: "Origin") -> bool:
        """Whether who says this speaks of requests that came from `other`."""
        if self.genkey != other.genkey:
            return False
        if not self.genkey:
            return self.address == other.address and self.page in ("", other.page)
        return self.address == other.address or (self.has_key and other.has_key)


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole generation."""

    text: str
    finish: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Vector:
    """The embedding of one input: float32, little-endian, of length 1, and the tokens that it took."""

    raw: bytes
    tokens: int

    @property
    def values(self) -> list[float]:
        """The same as numbers."""
        return list(array("f", self.raw))

    def shortened(self, dimensions: int) -> "Vector":
        """Its first numbers, of length 1 again. Raises `RequestError` where there are not so many."""
        values = self.values
        if dimensions > len(values):
            raise RequestError(f"vectors of this model have {len(values)} dimensions, not {dimensions}")
        kept = values[:dimensions]
        length = math.hypot(*kept) or 1.0
        return Vector(array("f", [value / length for value in kept]).tobytes(), self.tokens)


@dataclass(frozen=True, slots=True)
class Said:
    """What a generation has said: also after its end, for those who ask."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()

    def __add__(self, event: Event) -> "Said":
        return Said(self.text + event.text, self.logprobs + event.logprobs)


@dataclass(frozen=True, slots=True)
class Status:
    """What the server is doing, for those who ask how it is."""

    last_usage: Usage | None
    last_finish: FinishReason | None
    drafted: int
    """Tokens of the last reply that were guessed ahead, and of them those that were right."""
    accepted: int
    finished: int
    open: int
    waiting: int
    uptime: float
    idle_time: float


@dataclass(slots=True, eq=False)
class _Ticket:
    """An admitted call: one or several generations that come and go together."""

    origin: Origin
    request_ids: tuple[str, ...]
    texts: dict[str, Said] = field(default_factory=dict)
    aborted: bool = False
    unfinished: set[str] = field(default_factory=set)
    """Of the requests, those that take a place: until the engine is done with them, read or not."""
    unread: set[str] = field(default_factory=set)
    """Of the requests, those whose last event has not been handed to the client."""

    def __post_init__(self) -> None:
        self.unfinished.update(self.request_ids)
        self.unread.update(self.request_ids)

    def take(self, event: Event) -> None:
        """Note what the engine has made."""
        self.texts[event.request_id] = self.texts.get(event.request_id, Said()) + event
        if event.finish is not None:
            self.unfinished.discard(event.request_id)

    @property
    def said(self) -> Said:
        return self.texts.get(self.request_ids[0], Said())


class GenerationService:
    """Admits requests, runs them on the engine, and knows which are open.

    At most `capacity` generations are open at a time, running or waiting; the next one is refused
    with `BusyError` at once rather than kept hanging. One that the engine has finished takes no place, even
    where its client has not read it yet. `most_tokens` caps the length of every reply.
    """

    def __init__(self, engine: EngineClient, capacity: int, most_tokens: int | None = None) -> None:
        self.engine = engine
        self._capacity = capacity
        self._most_tokens = most_tokens
        self._tickets: list[_Ticket] = []
        self._texts: OrderedDict[Origin, Said] = OrderedDict()
        self.guesses = GuessLimit()
        self.stops = KeylessStops()
        self._started = self._last_asked = time.monotonic()

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self.engine.info

    async def stream(self, *requests: GenerationRequest, origin: Origin) -> AsyncGenerator[Event, None]:
        """The events of `requests`, mixed as they come; each request's last event has `finish` set.

        The first event is empty and says that the engine has taken the requests: whatever is wrong
        with them was raised before. Raises `RequestError`, `BusyError`, `EngineDeadError`. Leaving
        early aborts what still runs.
        """
        names = tuple(request.request_id for request in requests)
        with self._admitted(names, origin) as ticket:
            asked = [replace(self._capped(request), client=origin.address) for request in requests]
            prepared = tuple([await self.engine.prepare(request) for request in asked])
            for request in prepared:
                _tell_cut(request)
            if ticket.aborted:
                yield Event(prepared[0].request_id)
                for request in prepared:
                    yield Event(request.request_id, finish=FinishReason.ABORT, usage=Usage(0, 0))
                return
            async with aclosing(self.engine.events(prepared, ticket.take)) as events:
                async for event in events:
                    if event.finish is not None:
                        ticket.unread.discard(event.request_id)
                    yield event

    async def generate(self, *requests: GenerationRequest, origin: Origin) -> list[Reply]:
        """The whole replies, in the order of `requests`. Raises as `stream` does."""
        said = {request.request_id: Said() for request in requests}
        prompts: dict[str, tuple[TokenLogprob, ...]] = {}
        last: dict[str, Event] = {}
        async with aclosing(self.stream(*requests, origin=origin)) as events:
            async for event in events:
                said[event.request_id] += event
                if event.prompt_logprobs:
                    prompts[event.request_id] = event.prompt_logprobs
                if event.finish is FinishReason.ERROR:
                    raise failure(event.error, refused=event.refused)
                if event.finish is not None:
                    last[event.request_id] = event
        return [
            _reply(said[name], last[name], prompts.get(name, ()))
            for name in (request.request_id for request in requests)
        ]

    async def said_so_far(self, origin: Origin) -> Said:
        """What the newest generation of that name has said, also after its end; nothing if there is none.

        Answers slowly to those who guess names. Raises `BusyError` where they do so many times at once.
        """
        await self._slow_guesses(origin)
        for ticket in reversed(self._tickets):
            if origin.means(ticket.origin):
                return ticket.said
        kept = (said for kept, said in reversed(self._texts.items()) if origin.means(kept))
        return next(kept, Said())

    async def abort(self, origin: Origin) -> bool:
        """End all generations of that name; whether there were any. Slow for guesses, as `said_so_far` is.

        Without a genkey it may be the second half of a stop whose first half is a closed connection, or the
        other way round: then nothing else ends, see `server.stops`.
        """
        await self._slow_guesses(origin)
        if not origin.genkey and self.stops.is_satisfied(origin.address):
            return True
        found = [ticket for ticket in self._tickets if origin.means(ticket.origin) and ticket.unfinished]
        if origin.genkey or len(found) < 2:
            self._abort_those(found)
        else:
            self.stops.end_unless_closed(origin.address, found, partial(self._abort_those, found))
        return bool(found)

    def abort_all(self) -> None:
        """End everything that is open. May be called from a signal handler."""
        self._abort_those(tuple(self._tickets))

    async def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        request_id: str,
        *,
        pooling: Pooling,
        truncate: bool,
        dimensions: int | None = None,
        origin: Origin = Origin(),
    ) -> list[Vector]:
        """The vectors of texts or token ids, in their order, one after the other; they take one place.

        `dimensions`: numbers of each vector, None for all.
        Raises `RequestError`, `BusyError`, `EngineDeadError`.
        """
        vectors = []
        with self._admitted((request_id,), Origin()) as ticket:
            for number, given in enumerate(inputs):
                ids = await self.count(given, special=True) if isinstance(given, str) else given
                name = f"{request_id}-{number}"
                ticket.request_ids = (name,)  # what an abort ends in the engine
                wanted = EmbeddingRequest(name, tuple(ids), pooling, truncate, origin.address)
                if ticket.aborted:
                    raise EngineDeadError("the server is stopping")
                embedding = await self.engine.embed(wanted)
                assert embedding.vector is not None
                vector = Vector(embedding.vector, embedding.prompt_tokens)
                vectors.append(vector if dimensions is None else vector.shortened(dimensions))
        return vectors

    async def count(self, text: str, *, special: bool) -> list[int]:
        """Token ids of the whole `text`; `special` puts BOS in front where the model wants one.

        Raises `RequestError` for a text that no context holds, `BusyError`.
        """
        most = max(LONGEST_COUNTED, CHARACTERS_PER_TOKEN * self.info.context_length)
        if len(text) > most:
            raise RequestError(f"the text has {len(text)} characters; this server counts at most {most}")
        return await self.engine.encode(text, add_bos=None if special else False)

    async def fits(self, text: str, tokens: int) -> bool:
        """Whether a prompt has at most `tokens` tokens; the beginning of a longer one is not tokenised."""
        return len(await self.engine.encode_end(text, tokens)) <= tokens

    async def size(self, text: str) -> int:
        """How many tokens a text has, beyond `LONGEST_COUNTED` an estimate by its end. Raises `BusyError`."""
        counted = text[-LONGEST_COUNTED:]
        ids = await self.engine.encode(counted, add_bos=None)
        return len(ids) * len(text) // max(1, len(counted))

    async def decode(self, ids: list[int], *, render_special: bool = True) -> str:
        """The text of token ids. Raises `RequestError` for an id outside the vocabulary, `BusyError`."""
        return await self.engine.decode(ids, render_special=render_special)

    async def render_chat(self, prompt: ChatPrompt) -> str:
        """The text that the model's template makes of messages. Raises `RequestError`, `BusyError`."""
        return await self.engine.render_chat(prompt)

    def stop(self) -> None:
        """End everything for good. May be called from a signal handler."""
        self.abort_all()
        self.engine.stop_rendering()

    def status(self) -> Status:
        """What goes on at this moment."""
        now = time.monotonic()
        snapshot = self.engine.snapshot()
        return Status(
            last_usage=snapshot.last_usage,
            last_finish=snapshot.last_finish,
            drafted=snapshot.last_drafted_tokens,
            accepted=snapshot.last_accepted_tokens,
            finished=snapshot.requests_finished,
            open=self._open,
            waiting=snapshot.waiting,
            uptime=now - self._started,
            idle_time=now - self._last_asked,
        )

    def _capped(self, request: GenerationRequest) -> GenerationRequest:
        most = self._most_tokens
        return request if most is None else replace(request, max_tokens=min(request.max_tokens, most))

    @property
    def _open(self) -> int:
        return sum(len(ticket.unfinished) for ticket in self._tickets)

    @contextmanager
    def _admitted(self, names: tuple[str, ...], origin: Origin) -> Iterator[_Ticket]:
        if len(names) > self._capacity:
            raise RequestError(
                f"the request asks for {len(names)} generations at once; this server takes at most "
                f"{self._capacity}"
            )
        if self._open + len(names) > self._capacity:
            raise BusyError("Server is busy; please try again later.")
        self._last_asked = time.monotonic()
        ticket = _Ticket(origin, names)
        self._tickets.append(ticket)
        try:
            yield ticket
        except (GeneratorExit, asyncio.CancelledError):
            if ticket.unread and not ticket.aborted and not origin.genkey:
                self.stops.note_closed(origin.address, ticket)
            raise
        finally:
            self._tickets.remove(ticket)
            self._remember(ticket)

    async def _slow_guesses(self, origin: Origin) -> None:
        known = (*(ticket.origin for ticket in self._tickets), *self._texts)
        if origin.genkey and not any(origin.means(one) for one in known):
            await self.guesses.wait(origin.address)

    def _remember(self, ticket: _Ticket) -> None:
        self._texts[ticket.origin] = ticket.said
        self._texts.move_to_end(ticket.origin)
        while len(self._texts) > REMEMBERED_TEXTS:
            self._texts.popitem(last=False)

    def _abort_those(self, tickets: Iterable[_Ticket]) -> None:
        for ticket in tickets:
            ticket.aborted = True
            for request_id in ticket.request_ids:
                self.engine.abort(request_id)


def _tell_cut(request: GenerationRequest) -> None:
    """Note in the log that a prompt does not go to the model as it came."""
    assert isinstance(request.prompt, TokenPrompt)
    kept = len(request.prompt.ids)
    if kept < request.sent_tokens:
        _logger.info(
            "a prompt of %d tokens was cut to %d: prompt and reply share the context, see --contextsize",
            request.sent_tokens,
            kept,
        )


def _reply(said: Said, last: Event, prompt: tuple[TokenLogprob, ...]) -> Reply:
    assert last.finish is not None
    usage = last.usage if last.usage is not None else Usage(0, 0)
    return Reply(said.text, last.finish, usage, said.logprobs, prompt)


def numbered(request: GenerationRequest, count: int) -> tuple[GenerationRequest, ...]:
    """`count` requests that differ in their ids and seeds, for several answers to one question."""
    copies = []
    for index in range(count):
        seed = request.sampling.seed
        sampling = replace(request.sampling, seed=None if seed is None else seed + index)
        copies.append(replace(request, request_id=f"{request.request_id}-{index}", sampling=sampling))
    return tuple(copies)
