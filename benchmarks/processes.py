"""Starts processes for a measurement so that none outlives it."""

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_GRACE_SECONDS = 5.0
_DEATH_SIGNAL = 1
"""Linux's number of the option of prctl that names the signal for a parent's death."""

_libc = ctypes.CDLL(None)


def start(
    command: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a process whose pipes are text. `end` it; if we are gone before that, the kernel kills it.

    It has a session of its own, so that Ctrl-C reaches us alone, who end it in order.
    """
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        text=True,
        start_new_session=True,
        # A signal that comes while Popen still works leaves nobody who knows of the process: hence this.
        preexec_fn=_die_with_parent,
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a process that we started, gently first, and wait for its end. One that has ended is no error."""
    if process.returncode is None:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # What it did not read before its end is of no use any more.
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process keeps a core busy meanwhile, at our own priority."""
    process = start([sys.executable, "-S", "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        yield
    finally:
        end(process)


def _die_with_parent() -> None:
    _libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)
