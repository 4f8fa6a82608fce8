"""The service without HTTP, around a real engine: what it remembers of generations that have ended."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.types import GenerationRequest, SamplingParams, TextPrompt
from engine.worker import EngineWorker
from server.client import EngineClient
from server.service import REMEMBERED_TEXTS, GenerationService, Origin

Run = Callable[[Callable[[GenerationService], Awaitable[None]]], None]


@pytest.fixture
def run(tiny_worker: EngineWorker) -> Run:
    """Runs a visit to a fresh service on an event loop of its own."""

    def run(visit: Callable[[GenerationService], Awaitable[None]]) -> None:
        async def with_service() -> None:
            await visit(GenerationService(EngineClient(tiny_worker), capacity=4))

        asyncio.run(with_service())

    return run


async def say(service: GenerationService, origin: Origin, seed: int = 0) -> str:
    """The text of a short generation; different seeds say different things."""
    name = f"{origin.name}-{seed}"
    request = GenerationRequest(
        name, TextPrompt("hello"), max_tokens=4, ignore_eos=True, sampling=SamplingParams(seed=seed)
    )
    [reply] = await service.generate(request, origin=origin)
    return reply.text


def key(number: int) -> Origin:
    return Origin("192.0.2.1", f"K{number}")


def test_the_text_that_was_kept_longest_goes_first(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        texts = [await say(service, key(number), number) for number in range(REMEMBERED_TEXTS)]
        remembered = [service.said_so_far(key(number)).text for number in range(REMEMBERED_TEXTS)]
        assert remembered == texts, "as many are kept"
        assert len(set(texts)) > 1
        assert all(texts)
        last = await say(service, key(REMEMBERED_TEXTS), REMEMBERED_TEXTS)
        assert service.said_so_far(key(0)).text == "", "one too many: the first is gone"
        remembered = [service.said_so_far(key(number)).text for number in range(1, REMEMBERED_TEXTS + 1)]
        assert remembered == [*texts[1:], last]

    run(visit)


def test_a_name_that_is_used_again_is_kept_longer(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        for number in range(REMEMBERED_TEXTS):
            await say(service, key(number), number)
        again = await say(service, key(0), 4711)
        await say(service, key(REMEMBERED_TEXTS))
        assert service.said_so_far(key(0)).text == again, "the newer of its two texts"
        assert service.said_so_far(key(1)).text == "", "which has become the oldest"
        assert service.said_so_far(key(2)).text

    run(visit)


def test_looking_at_a_text_keeps_it_no_longer(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        for number in range(REMEMBERED_TEXTS):
            await say(service, key(number), number)
        assert service.said_so_far(key(0)).text
        await say(service, key(REMEMBERED_TEXTS))
        assert service.said_so_far(key(0)).text == ""

    run(visit)


def test_keyless_texts_are_kept_by_address(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        here, there = Origin("192.0.2.1"), Origin("192.0.2.2")
        texts = {origin: await say(service, origin, seed) for seed, origin in enumerate((here, there))}
        with_key = await say(service, Origin("192.0.2.1", "K"), 2)
        assert len({*texts.values(), with_key}) == 3
        assert {origin: service.said_so_far(origin).text for origin in texts} == texts
        assert service.said_so_far(Origin("192.0.2.3", "K")).text == with_key, "from anywhere"

    run(visit)
