"""Slows those who guess the names of other people's generations."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.errors import BusyError

BURST = 30
"""Wrong names that cost nothing: clients ask for texts that were forgotten, or before they were begun."""
PER_SECOND = 2.0
"""Wrong names a second that cost nothing for ever."""
DELAY = 0.5
"""Seconds that each further one takes. Kobold Lite's names have four digits: all take half an hour."""
AT_ONCE = 2
"""Wrong names of one address that wait at a time; the next is refused."""
ADDRESSES = 1024
"""Addresses that are remembered; the one that was quiet for longest is forgotten first."""


@dataclass(slots=True)
class _Guesser:
    left: float
    asked: float
    """When `left` was right, in seconds of the clock."""
    waiting: int = 0


class GuessLimit:
    """Counts wrong names by address: `PER_SECOND + AT_ONCE / DELAY` a second at most, in the long run."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()

    async def wait(self, address: str) -> None:
        """Note a wrong name, and return when it may be answered. Raises `BusyError`."""
        guesser = self._guesser(address)
        if guesser.left >= 1:
            guesser.left -= 1
            return
        if guesser.waiting >= AT_ONCE:
            raise BusyError("too many unknown genkeys; please try again later")
        guesser.waiting += 1
        try:
            await self._sleep(DELAY)
        finally:
            guesser.waiting -= 1

    def _guesser(self, address: str) -> _Guesser:
        now = self._clock()
        guesser = self._guessers.setdefault(address, _Guesser(BURST, now))
        guesser.left = min(BURST, guesser.left + (now - guesser.asked) * PER_SECOND)
        guesser.asked = now
        self._guessers.move_to_end(address)
        while len(self._guessers) > ADDRESSES:
            self._guessers.popitem(last=False)
        return guesser
