"""Whom an abort without a genkey means, where clients that share an address also close their connections.

A client may stop its reply in two ways at once, in either order: it closes the connection, and it posts an
abort that names nothing. Taken by itself the abort would end the replies of all others at that address.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

BEFORE_SECONDS = 1.0
"""How long a closed connection can satisfy an abort that comes later."""
AFTER_SECONDS = 1.0
"""How long an abort that might mean one of several replies waits for a connection to be closed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Undecided:
    """An abort that may mean any of several calls."""

    calls: Collection[object]
    timer: asyncio.TimerHandle


class KeylessStops:
    """Pairs aborts with closed connections, one with one, for each address. Belongs to one event loop."""

    def __init__(self) -> None:
        self._closed: deque[tuple[float, str]] = deque()
        """When connections were closed, and from which address: those that no abort has been paired with."""
        self._undecided: dict[str, list[_Undecided]] = {}

    def note_closed(self, address: str, call: object) -> None:
        """A client has closed the connection of an unfinished call."""
        for undecided in self._undecided.get(address, ()):
            if call in undecided.calls:
                undecided.timer.cancel()
                self._decide(address, undecided)
                return
        self._forget_old()
        self._closed.append((time.monotonic(), address))

    def is_satisfied(self, address: str) -> bool:
        """Whether a connection closed shortly before is what an abort means; it then counts for no other."""
        self._forget_old()
        for closed in self._closed:
            if closed[1] == address:
                self._closed.remove(closed)
                return True
        return False

    def end_unless_closed(self, address: str, calls: Collection[object], end: Callable[[], None]) -> None:
        """Call `end` after `AFTER_SECONDS`, unless the connection of one of `calls` is closed by then."""

        def decide() -> None:
            self._decide(address, undecided)
            end()

        timer = asyncio.get_running_loop().call_later(AFTER_SECONDS, decide)
        undecided = _Undecided(calls, timer)
        self._undecided.setdefault(address, []).append(undecided)

    def _decide(self, address: str, undecided: _Undecided) -> None:
        waiting = self._undecided[address]
        waiting.remove(undecided)
        if not waiting:
            del self._undecided[address]

    def _forget_old(self) -> None:
        oldest = time.monotonic() - BEFORE_SECONDS
        while self._closed and self._closed[0][0] < oldest:
            self._closed.popleft()
