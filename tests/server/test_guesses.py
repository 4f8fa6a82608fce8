"""Wrong names cost time."""

import asyncio

import pytest

from engine.errors import BusyError
from server.guesses import ADDRESSES, AT_ONCE, BURST, DELAY, GuessLimit


class Clock:
    """Time that passes when somebody sleeps, or the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.limit = GuessLimit(lambda: self.now, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def guess(self, address: str, count: int = 1) -> None:
        async def all_of_them() -> None:
            for _ in range(count):
                await self.limit.wait(address)

        asyncio.run(all_of_them())


def test_a_burst_is_free_and_then_each_takes_its_time() -> None:
    clock = Clock()
    clock.guess("a", BURST)
    assert clock.slept == []
    clock.guess("a", 3)
    assert clock.slept == [DELAY] * 3


def test_patience_is_rewarded() -> None:
    clock = Clock()
    clock.guess("a", BURST)
    clock.now += 1
    clock.guess("a", 2)
    assert clock.slept == []
    clock.guess("a")
    assert clock.slept == [DELAY]


def test_others_are_not_slowed() -> None:
    clock = Clock()
    clock.guess("a", BURST + 1)
    clock.guess("b", BURST)
    assert clock.slept == [DELAY]


def test_no_more_than_a_few_wait_at_once() -> None:
    clock = Clock()
    clock.guess("a", BURST)

    async def crowd() -> list[object]:
        return await asyncio.gather(
            *(clock.limit.wait("a") for _ in range(AT_ONCE + 3)), return_exceptions=True
        )

    errors = [error for error in asyncio.run(crowd()) if error is not None]
    assert [type(error) for error in errors] == [BusyError] * 3
    with pytest.raises(IndexError):
        clock.slept[AT_ONCE]


def test_addresses_are_forgotten_and_the_quietest_goes_first() -> None:
    clock = Clock()
    clock.guess("old", BURST)
    clock.guess("busy", BURST)
    for number in range(ADDRESSES - 1):
        clock.guess(str(number))
        clock.guess("busy") if number % 100 == 0 else None
    clock.slept.clear()
    clock.guess("old", BURST)
    assert clock.slept == []
    clock.guess("busy")
    assert clock.slept == [DELAY]
