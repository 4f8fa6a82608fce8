"""The service without HTTP, around a real engine: what it remembers, what it limits, what it tells."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import EngineDeadError
from engine.types import GenerationRequest, SamplingParams, TextPrompt
from engine.worker import EngineWorker
from server.client import EngineClient
from server.service import REMEMBERED_TEXTS, GenerationService, Origin, numbered

LENGTH_LIMIT = 5
Run = Callable[[Callable[[GenerationService], Awaitable[None]]], None]


@pytest.fixture
def run(tiny_worker: EngineWorker) -> Run:
    """Runs a visit to a fresh service on an event loop of its own."""

    def run(visit: Callable[[GenerationService], Awaitable[None]]) -> None:
        async def with_service() -> None:
            await visit(GenerationService(EngineClient(tiny_worker), capacity=4, most_tokens=LENGTH_LIMIT))

        asyncio.run(with_service())

    return run


async def say(service: GenerationService, origin: Origin, seed: int = 0) -> str:
    """The text of a short generation; different seeds say different things."""
    name = f"{origin.address}-{origin.genkey}-{seed}"
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
        remembered = [(await service.said_so_far(key(number))).text for number in range(REMEMBERED_TEXTS)]
        assert remembered == texts, "as many are kept"
        assert len(set(texts)) > 1
        assert all(texts)
        last = await say(service, key(REMEMBERED_TEXTS), REMEMBERED_TEXTS)
        assert (await service.said_so_far(key(0))).text == "", "one too many: the first is gone"
        remembered = [
            (await service.said_so_far(key(number))).text for number in range(1, REMEMBERED_TEXTS + 1)
        ]
        assert remembered == [*texts[1:], last]

    run(visit)


def test_a_name_that_is_used_again_is_kept_longer(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        for number in range(REMEMBERED_TEXTS):
            await say(service, key(number), number)
        again = await say(service, key(0), 4711)
        await say(service, key(REMEMBERED_TEXTS))
        assert (await service.said_so_far(key(0))).text == again, "the newer of its two texts"
        assert (await service.said_so_far(key(1))).text == "", "which has become the oldest"
        assert (await service.said_so_far(key(2))).text

    run(visit)


def test_looking_at_a_text_keeps_it_no_longer(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        for number in range(REMEMBERED_TEXTS):
            await say(service, key(number), number)
        assert (await service.said_so_far(key(0))).text
        await say(service, key(REMEMBERED_TEXTS))
        assert (await service.said_so_far(key(0))).text == ""

    run(visit)


def test_keyless_texts_are_kept_by_address(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        here, there = Origin("192.0.2.1"), Origin("192.0.2.2")
        texts = {origin: await say(service, origin, seed) for seed, origin in enumerate((here, there))}
        with_key = await say(service, Origin("192.0.2.1", "K"), 2)
        assert len({*texts.values(), with_key}) == 3
        assert {origin: (await service.said_so_far(origin)).text for origin in texts} == texts
        assert (await service.said_so_far(Origin("192.0.2.1", "K"))).text == with_key
        assert (await service.said_so_far(Origin("192.0.2.3", "K"))).text == "", "another address"

    run(visit)


def test_of_several_choices_the_first_is_remembered(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        request = GenerationRequest(
            "several", TextPrompt("hello"), 4, ignore_eos=True, sampling=SamplingParams(seed=1)
        )
        replies = await service.generate(*numbered(request, 3), origin=key(1))
        assert len({reply.text for reply in replies}) == 3
        assert (await service.said_so_far(key(1))).text == replies[0].text

    run(visit)


@pytest.mark.parametrize(("wanted", "made"), [(3, 3), (LENGTH_LIMIT, LENGTH_LIMIT), (9, LENGTH_LIMIT)])
def test_replies_have_a_length_limit(run: Run, wanted: int, made: int) -> None:
    async def visit(service: GenerationService) -> None:
        request = GenerationRequest("long", TextPrompt("hello"), wanted, ignore_eos=True)
        [reply] = await service.generate(request, origin=Origin())
        assert reply.usage.completion_tokens == made

    run(visit)


def test_a_request_begins_the_idle_time_again(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        fresh = service.status()
        assert fresh.idle_time == fresh.uptime
        await say(service, key(1))
        later = service.status()
        assert fresh.uptime < later.uptime
        assert later.idle_time < later.uptime

    run(visit)


def test_embeddings_end_between_two_inputs_when_the_server_stops(run: Run) -> None:
    async def visit(service: GenerationService) -> None:
        embedding = asyncio.create_task(service.embed(["hello"] * 3, "e", pooling="mean", truncate=True))
        await asyncio.sleep(0)  # it has its place and counts the first input's tokens
        assert service.status().open == 1
        service.abort_all()
        with pytest.raises(EngineDeadError, match="the server is stopping"):
            await embedding
        assert service.status().open == 0

    run(visit)
