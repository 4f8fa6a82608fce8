"""Threads for work that must not run on the event loop: tokenising, rendering, compiling, parsing.

Knows nothing of the work itself. The threads have a lower priority than the engine's, so that decoding keeps
its pace where cores are few.
"""

import asyncio
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from engine.errors import BusyError

client: ContextVar[str] = ContextVar("client", default="")
"""Who the present request comes from; a middleware sets it."""

Given = ParamSpec("Given")
Result = TypeVar("Result")

PATIENCE_SECONDS = 30.0
"""How long a call waits for a thread."""
NICENESS = 10
"""Added to the niceness of the process: such a thread gets a tenth of a core that the engine needs too."""


class WorkPool:
    """A few threads that are shared by clients in rotation. Belongs to one event loop.

    The calls of one client run in their order. The pool rotates between clients: the many calls of one delay
    each call of another by one call. A call that is cancelled while it waits never runs.
    """

    def __init__(self, name: str, threads: int, waiting_per_client: int) -> None:
        """Starts no thread before the first call. `waiting_per_client`: calls beyond are refused."""
        self._executor = ThreadPoolExecutor(threads, name, initializer=_lower_priority)
        self._free = threads
        self._most_waiting = waiting_per_client
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def run(self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """The result of `work` in a thread of the pool. Raises `BusyError`, and what `work` raises."""
        await self._enter(client.get())
        running = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))
        )
        # The thread is taken until the work has ended, even where nobody waits for it any more.
        running.add_done_callback(self._leave)
        return await asyncio.shield(running)

    def close(self) -> None:
        """End the threads once their present work is done."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _enter(self, name: str) -> None:
        if self._free > 0:
            self._free -= 1
            return
        queue = self._waiting.setdefault(name, deque())
        if len(queue) >= self._most_waiting:
            raise BusyError("too many of your requests are being prepared; please try again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the thread came in the same moment
            if isinstance(error, TimeoutError):
                raise BusyError("Server is busy; please try again later.") from None
            raise

    def _leave(self, ended: "asyncio.Future[Result]") -> None:
        if not ended.cancelled():
            ended.exception()  # seen, also where the caller has left
        self._pass_on()

    def _pass_on(self) -> None:
        """Give the free thread to the next client in rotation."""
        while self._waiting:
            name, queue = self._waiting.popitem(last=False)
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    if queue:
                        self._waiting[name] = queue
                    return
        self._free += 1


def _lower_priority() -> None:
    """For the calling thread. Where the system does not allow it, the thread works as it is."""
    with suppress(OSError, AttributeError):
        os.setpriority(
            os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
        )
