"""Who takes a place on the server, and whose generations a name means."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

from engine.errors import BusyError, RequestError
from engine.types import Event, GenerationRequest, TextPrompt
from engine.worker import EngineWorker
from server.client import EngineClient
from server.guesses import BURST, GuessLimit
from server.service import LONGEST_COUNTED, GenerationService, Origin

HERE, THERE = "192.0.2.1", "192.0.2.2"


def request(tokens: int = 40) -> GenerationRequest:
    return GenerationRequest(secrets.token_hex(8), TextPrompt("hello"), tokens, ban_eos=True)


def with_service(worker: EngineWorker, test: Callable[[GenerationService], Awaitable[None]]) -> None:
    async def run() -> None:
        await test(GenerationService(EngineClient(worker), capacity=1))

    asyncio.run(run())


async def begun(events: AsyncGenerator[Event, None]) -> None:
    """The engine has taken the request."""
    await anext(events)


async def finished(service: GenerationService) -> None:
    while service.status().open:
        await asyncio.sleep(0.005)


def test_what_the_engine_has_finished_takes_no_place(tiny_worker: EngineWorker) -> None:
    """The first client never reads its stream."""

    async def test(service: GenerationService) -> None:
        async with aclosing(service.stream(request(), origin=Origin(HERE))) as unread:
            await begun(unread)
            with pytest.raises(BusyError):
                await service.generate(request(), origin=Origin(THERE))
            await finished(service)
            assert len(await service.generate(request(2), origin=Origin(THERE))) == 1
            assert len((await service.said_so_far(Origin(HERE))).text) > 20
            assert not await service.abort(Origin(HERE)), "nothing is left to end"
            events = [event async for event in unread]
            assert events[-1].finish is not None

    with_service(tiny_worker, test)


@pytest.mark.parametrize(
    ("asking", "meant"),
    [
        (Origin(HERE, "key"), True),
        (Origin(HERE, "key", has_key=True), True),
        (Origin(THERE, "key"), False),
        (Origin(THERE, "key", has_key=True), False),
        (Origin(HERE, "other"), False),
        (Origin(HERE), False),
    ],
)
def test_a_name_means_its_own_address_alone(tiny_worker: EngineWorker, asking: Origin, meant: bool) -> None:
    async def test(service: GenerationService) -> None:
        async with aclosing(service.stream(request(400), origin=Origin(HERE, "key"))) as events:
            while not (await anext(events)).text:
                pass
            assert bool((await service.said_so_far(asking)).text) == meant
            assert await service.abort(asking) == meant
        assert bool((await service.said_so_far(asking)).text) == meant, "remembered"

    with_service(tiny_worker, test)


def test_a_name_means_those_with_the_same_key(tiny_worker: EngineWorker) -> None:
    async def test(service: GenerationService) -> None:
        origin = Origin(HERE, "key", has_key=True)
        async with aclosing(service.stream(request(400), origin=origin)) as events:
            await begun(events)
            assert not await service.abort(Origin(THERE, "key"))
            assert not await service.abort(Origin(THERE, has_key=True)), "a keyless abort is for its address"
            assert await service.abort(Origin(THERE, "key", has_key=True))

    with_service(tiny_worker, test)


def test_guesses_are_slowed_and_known_names_are_not(tiny_worker: EngineWorker) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def test(service: GenerationService) -> None:
        service.guesses = GuessLimit(clock=lambda: 0.0, sleep=sleep)
        await service.generate(request(2), origin=Origin(HERE, "mine"))
        for number in range(BURST):
            await service.abort(Origin(HERE, f"guess {number}"))
            await service.said_so_far(Origin(HERE, "mine"))
            await service.said_so_far(Origin(HERE))
        assert slept == []
        assert not (await service.said_so_far(Origin(HERE, "guess"))).text
        assert len(slept) == 1
        await service.said_so_far(Origin(HERE, "mine"))
        assert len(slept) == 1

    with_service(tiny_worker, test)


def test_a_text_beyond_all_contexts_is_not_counted(tiny_worker: EngineWorker) -> None:
    async def test(service: GenerationService) -> None:
        assert len(await service.count("hello " * 10_000, special=False)) >= 10_000
        with pytest.raises(RequestError, match=f"at most {LONGEST_COUNTED}"):
            await service.count("x" * (LONGEST_COUNTED + 1), special=False)
        assert await service.fits("hello", 100)
        assert not await service.fits("hello " * 5_000_000, 100)

    with_service(tiny_worker, test)
