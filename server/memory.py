"""Gives memory back to the system after large work. glibc keeps what was freed, in one arena for each thread.

Does nothing where the C library has no such calls (musl, macOS).
"""

import asyncio
import ctypes
from collections.abc import Callable

ARENAS = 2
"""Of the allocator. More would keep the peak of each thread; the engine's threads hardly allocate."""
LARGE_WORK = 1 << 20
"""Bytes of a request after which memory is given back."""
QUIET_SECONDS = 1.0
"""After the last large request: a trim takes milliseconds."""

_M_ARENA_MAX = -8


def limit_arenas() -> None:
    """For the process, before its threads start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free memory of all arenas to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


class MemoryTrim:
    """Gives memory back once large work has paused. Belongs to one event loop."""

    def __init__(self, trim: Callable[[], None] = give_back, quiet: float = QUIET_SECONDS) -> None:
        """`quiet`: seconds after the last large work."""
        self._trim = trim
        self._quiet = quiet
        self._timer: asyncio.TimerHandle | None = None

    def note(self, size: int) -> None:
        """Note that work on `size` bytes has ended."""
        if size < LARGE_WORK:
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        # ctypes releases the interpreter lock; a thread keeps the event loop free as well.
        self._timer = loop.call_later(self._quiet, lambda: loop.run_in_executor(None, self._trim))
