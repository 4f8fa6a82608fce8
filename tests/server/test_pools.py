"""Threads that clients share in rotation."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from engine.errors import BusyError
from server.pools import NICENESS, WorkPool, client


class Gate:
    """Work that waits until the test lets it go on, and notes who has run."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.started: list[str] = []

    def wait(self, name: str) -> str:
        self.started.append(name)
        assert self.opened.wait(10)
        return name


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def in_a_pool(test: Callable[[WorkPool], Awaitable[None]], waiting: int = 8) -> None:
    async def in_a_loop() -> None:
        pool = WorkPool("test", 1, waiting)
        try:
            await test(pool)
        finally:
            pool.close()

    asyncio.run(in_a_loop())


async def run(pool: WorkPool, name: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A call that comes from a client."""
    client.set(name)
    return await pool.run(work, *args, **kwargs)


async def started(gate: Gate, count: int) -> None:
    while len(gate.started) < count:
        await asyncio.sleep(0.001)


def test_results_and_errors_come_back() -> None:
    async def test(pool: WorkPool) -> None:
        assert await run(pool, "a", divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await run(pool, "a", divmod, 7, 0)
        assert await run(pool, "a", int, "ff", base=16) == 255

    in_a_pool(test)


def test_clients_are_served_in_rotation(gate: Gate) -> None:
    async def test(pool: WorkPool) -> None:
        calls = [asyncio.ensure_future(run(pool, "", gate.wait, "first"))]
        await started(gate, 1)
        for whose, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")):
            calls.append(asyncio.ensure_future(run(pool, whose, gate.wait, name)))
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(*calls)
        assert gate.started == ["first", "a1", "b1", "c1", "a2", "b2", "a3"]

    in_a_pool(test)


def test_what_is_cancelled_while_it_waits_never_runs(gate: Gate) -> None:
    async def test(pool: WorkPool) -> None:
        first = asyncio.ensure_future(run(pool, "a", gate.wait, "first"))
        await started(gate, 1)
        second = asyncio.ensure_future(run(pool, "a", gate.wait, "second"))
        third = asyncio.ensure_future(run(pool, "a", gate.wait, "third"))
        await asyncio.sleep(0)
        second.cancel()
        gate.opened.set()
        assert [await first, await third] == ["first", "third"]
        assert gate.started == ["first", "third"]

    in_a_pool(test)


def test_a_thread_stays_taken_until_abandoned_work_has_ended(gate: Gate) -> None:
    async def test(pool: WorkPool) -> None:
        first = asyncio.ensure_future(run(pool, "a", gate.wait, "first"))
        await started(gate, 1)
        first.cancel()
        second = asyncio.ensure_future(run(pool, "a", gate.wait, "second"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert gate.started == ["first"]
        gate.opened.set()
        assert await second == "second"

    in_a_pool(test)


def test_a_thread_that_comes_with_the_cancellation_is_passed_on(gate: Gate) -> None:
    async def test(pool: WorkPool) -> None:
        gate.opened.set()
        first = asyncio.ensure_future(run(pool, "a", gate.wait, "first"))
        second = asyncio.ensure_future(run(pool, "a", gate.wait, "second"))
        third = asyncio.ensure_future(run(pool, "a", gate.wait, "third"))
        first.add_done_callback(lambda _: second.cancel())
        assert await third == "third"
        assert await run(pool, "a", gate.wait, "fourth") == "fourth"

    in_a_pool(test)


def test_one_client_cannot_fill_the_queue(gate: Gate) -> None:
    async def test(pool: WorkPool) -> None:
        first = asyncio.ensure_future(run(pool, "a", gate.wait, "first"))
        await started(gate, 1)
        waiting = [asyncio.ensure_future(run(pool, "a", gate.wait, "more")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await run(pool, "a", gate.wait, "too many")
        other = asyncio.ensure_future(run(pool, "b", gate.wait, "other"))
        gate.opened.set()
        await asyncio.gather(first, *waiting, other)
        assert "too many" not in gate.started

    in_a_pool(test, waiting=2)


def test_threads_give_way_to_the_engine() -> None:
    async def test(pool: WorkPool) -> None:
        def niceness() -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert await run(pool, "a", niceness) == min(19, own + NICENESS)
        assert os.getpriority(os.PRIO_PROCESS, 0) == own

    in_a_pool(test)
