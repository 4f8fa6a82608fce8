"""One process that renders chat templates, as its owner sees it.

The process is started afresh (never forked), in isolated mode, without the environment, without open files,
and finds the standard library, Jinja and this package only. It is ended with SIGKILL: by its owner, or with
its owner's interpreter; if that is killed itself, the process ends when its stdin does.
"""

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from engine.errors import BusyError, EngineDeadError
from engine.templates import wire
from engine.templates.limits import MAX_REASON, MAX_REPLY, Limits
from engine.templates.wire import Kind

_BOOT = "import sys; sys.path += sys.argv[3:]; from engine.templates.child import main; main()"
_PACKAGES = ("engine", "jinja2", "markupsafe")
_ENVIRONMENT = ("TZ", "LD_LIBRARY_PATH")
"""What the process needs of the environment: the time zone, and where the interpreter's library is."""
_CHUNK = 1 << 16
_SCHEDULED = 2
"""In the kernel's number for a clock of a process: exact CPU time, where timers count ticks."""


class ProcessEndedError(Exception):
    """The process has ended, or was ended, before it replied. The text continues "it ..."."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class StaleProcessError(Exception):
    """The process had ended before it was asked."""


class TemplateProcess:
    """Renders one request at a time. For one thread at a time, but `end`, which any may call."""

    def __init__(self, limits: Limits) -> None:
        """Starts the process and does not wait for it. Raises `BusyError`."""
        self._limits = limits
        self._ready = False
        self._dismissed = False
        self._cpu_end = math.inf
        command = [sys.executable, "-I", "-S", "-c", _BOOT, str(limits.memory), str(limits.cpu_seconds)]
        try:
            self._process = subprocess.Popen(
                [*command, *_folders()],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        except OSError as error:
            raise BusyError(f"no process can be started for the chat template: {error.strerror}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._finish = weakref.finalize(self, _end, self._process)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def render(self, request: bytes) -> tuple[Kind, str]:
        """Send a request and wait for the reply.

        Raises `ProcessEndedError` when the process ended instead, `StaleProcessError` when it had before,
        `EngineDeadError` after `end`, `BusyError` when it is not ready for long.
        """
        try:
            self._start()
            deadline = time.monotonic() + self._limits.wall_seconds
            self._cpu_end = self._cpu() + self._limits.cpu_seconds
            self._write(wire.pack(Kind.REQUEST, request), deadline)
            kind, text = self._reply(deadline)
            if kind in (Kind.REQUEST, Kind.READY):
                raise wire.WireError("that is no reply")
        except (EOFError, TimeoutError, wire.WireError) as error:
            out_of_time = self._cpu() >= self._cpu_end
            self._kill()
            if self._dismissed:
                raise EngineDeadError("the server is shutting down") from None
            raise self._cause(error, out_of_time) from None
        if kind is Kind.MEMORY:
            raise ProcessEndedError("memory", f"takes more than {self._limits.memory >> 20} MiB of memory")
        return kind, text

    def end(self) -> None:
        """Kill the process; a thread that waits for a reply gets `EngineDeadError`."""
        self._dismissed = True
        self._kill()

    def close(self) -> None:
        """Kill the process and close its pipes. Not while another thread waits for a reply."""
        self._finish()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        """Wait until the process has confined itself."""
        if self._ready:
            return
        try:
            kind, _ = self._reply(time.monotonic() + self._limits.start_seconds)
        except EOFError:
            if self._dismissed:
                raise
            raise StaleProcessError from None
        except TimeoutError:
            self._kill()
            raise BusyError("the process for the chat template does not start in time") from None
        if kind is not Kind.READY:
            raise wire.WireError("a process that is ready says so first")
        self._ready = True

    def _cpu(self) -> float:
        """Seconds of CPU time that the process has used."""
        with contextlib.suppress(OSError):
            return time.clock_gettime(~self.pid << 3 | _SCHEDULED)
        return 0.0

    def _cause(self, error: Exception, out_of_time: bool) -> ProcessEndedError:
        if out_of_time or -self._process.returncode in (signal.SIGPROF, signal.SIGXCPU):
            seconds = f"{self._limits.cpu_seconds:g} seconds of CPU time"
            return ProcessEndedError("time", f"takes longer than {seconds}")
        if isinstance(error, TimeoutError):
            return ProcessEndedError("time", f"takes longer than {self._limits.wall_seconds:g} seconds")
        return ProcessEndedError("crash", "ends the process that renders it")

    def _write(self, message: bytes, deadline: float) -> None:
        left = memoryview(message)
        while left:
            self._wait(self._to, select.POLLOUT, deadline)
            try:
                left = left[os.write(self._to, left[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                if len(left) < len(message) or self._dismissed:
                    raise EOFError from None
                raise StaleProcessError from None

    def _reply(self, deadline: float) -> tuple[Kind, str]:
        kind, size = wire.unpack_header(self._read(wire.HEADER.size, deadline))
        if size > (MAX_REPLY if kind is Kind.TEXT else MAX_REASON):
            raise wire.WireError("the reply is too long")
        return kind, wire.decode(self._read(size, deadline))

    def _read(self, size: int, deadline: float) -> bytearray:
        raw = bytearray()
        while len(raw) < size:
            self._wait(self._from, select.POLLIN, deadline)
            with contextlib.suppress(BlockingIOError):
                part = os.read(self._from, min(size - len(raw), _CHUNK))
                if not part:
                    raise EOFError
                raw += part
        return raw

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        """Until the pipe is ready. Raises TimeoutError when the process is out of time, of either kind."""
        poll = select.poll()
        poll.register(descriptor, event)
        while True:
            left = min(deadline - time.monotonic(), self._cpu_end - self._cpu())
            # a process of one thread cannot use up its CPU time before as much time has passed
            if poll.poll(max(0, math.ceil(left * 1000))):
                return
            if left <= 0:
                raise TimeoutError


@cache
def _folders() -> tuple[str, ...]:
    """Where the packages of the process are: without `site`, it does not know the environment's."""
    folders = []
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise BusyError(f"no process can be started for the chat template: {name} is not installed")
        folders.append(str(Path(spec.origin).resolve().parent.parent))
    return tuple(dict.fromkeys(folders))


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
