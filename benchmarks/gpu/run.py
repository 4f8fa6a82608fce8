"""Carries out the parts of a run within its time, and gathers what they find."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from benchmarks.gpu.plan import Part, prepared_parts, timed_parts
from benchmarks.gpu.settings import Figures, Settings
from benchmarks.processes import end
from engine.errors import NkatError

SECONDS = 480.0
"""Of a whole run: 8 minutes."""
_PREPARATION = 0.5
"""Share of them after which nothing more is prepared."""
_REPORT_SECONDS = 10.0

Say = Callable[[str], None]


class PartError(NkatError):
    """A part has ended early."""


class Launcher(Protocol):
    """Runs one part for at most so many seconds. Its figures come as they are found; raises what ends it."""

    workers: int
    """Parts that may run side by side."""

    def __call__(self, part: Part, settings: Settings, seconds: float) -> Iterator[Figures]:
        """The figures of a part."""

    def close(self) -> None:
        """End all parts that run, and start no more."""


class ChildLauncher:
    """Each part in a process of its own, which ends when we do."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def __call__(self, part: Part, settings: Settings, seconds: float) -> Iterator[Figures]:
        """See `Launcher`. Raises `PartError`."""
        if self._closed:
            raise PartError("not started: the run was ended")
        # In a session of its own Ctrl-C reaches us alone. It sees our end in that of its stdin.
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._running.add(process)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(seconds, expire)
        timer.start()
        try:
            yield from _answers(process, part, settings)
        finally:
            timer.cancel()
            self._running.discard(process)
            end(process)
        if expired.is_set():
            raise PartError(f"ended after {seconds:.0f} s: the run's time is over")
        if process.returncode:
            raise PartError(f"its process ended with code {process.returncode}")

    def close(self) -> None:
        """See `Launcher`."""
        self._closed = True
        for process in list(self._running):
            process.kill()


def _answers(process: subprocess.Popen[str], part: Part, settings: Settings) -> Iterator[Figures]:
    """What a child says, up to its end. Raises `PartError` with what it says went wrong."""
    assert process.stdin is not None, "it has a pipe"
    assert process.stdout is not None, "it has a pipe"
    told = {"kind": part.kind, "arguments": part.arguments, "settings": settings.as_json()}
    # One that has ended already says so by its code.
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise PartError(said["error"])
        yield said["figures"]
    process.wait()


class Run:
    """All parts of one run, and what has become of them."""

    def __init__(self, settings: Settings, launcher: Launcher, say: Say, seconds: float = SECONDS) -> None:
        """`say`: is told how it goes, line by line."""
        self._settings = settings
        self._launcher = launcher
        self._say = say
        self._seconds = seconds
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.figures: Figures = {}
        self.errors: dict[str, str] = {}
        """Parts that ended early, by name, with the reason."""
        self.left_out: list[str] = []
        """Parts for which there was no time."""
        self.part_seconds: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def carry_out(self) -> None:
        """Prepare side by side, then measure one part after the other."""
        parts = prepared_parts(self._settings)
        until = _PREPARATION * self._seconds
        if self._launcher.workers == 1:
            for part in parts:
                self._carry_out(part, until)
        else:
            self._side_by_side(parts, until)
        for part in timed_parts(self._settings):
            self._carry_out(part, self._seconds - _REPORT_SECONDS)

    def _side_by_side(self, parts: list[Part], until: float) -> None:
        pool = ThreadPoolExecutor(self._launcher.workers)
        try:
            for done in [pool.submit(self._carry_out, part, until) for part in parts]:
                done.result()
        except BaseException:  # Ctrl-C above all: the threads would wait for their parts
            self._launcher.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _carry_out(self, part: Part, until: float) -> None:
        """`until`: when it must have ended, in seconds since the beginning."""
        began = self.elapsed
        left = until - began
        if left <= part.least_seconds:
            self.left_out.append(part.name)
            self._say(f"{part.name}: left out, {max(0.0, left):.0f} s are left")
            return
        try:
            for figures in self._launcher(part, self._settings, left):
                with self._lock:
                    merge(self.figures, figures)
        except Exception as error:  # one part is not to take the others along
            text = " ".join(str(error).split()) or type(error).__name__
            self.errors[part.name] = text
            self._say(f"{part.name}: {text}")
            return
        finally:
            self.part_seconds[part.name] = self.elapsed - began
        self._say(f"{part.name}: done in {self.elapsed - began:.0f} s, {self.elapsed:.0f} s in all")


def merge(into: Figures, figures: Figures) -> None:
    """Take figures over, below names that both have one by one."""
    for name, value in figures.items():
        known = into.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            merge(known, value)
        else:
            into[name] = value
