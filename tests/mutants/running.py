"""Runs commands to their end or to a time limit, and leaves none of their processes."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from benchmarks.processes import start

_GLANCE_SECONDS = 0.2


class StoppedError(Exception):
    """Whoever waits for the command does not any more."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command has ended. `status`: None where it was ended at the limit."""

    status: int | None
    output: str
    seconds: float


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], limit: float, log: Path, stop: Event
) -> Finished:
    """`limit`: seconds. `log`: a file for its output: who else has a pipe open might outlive it.

    Raises `StoppedError` once `stop` is set.
    """
    began = time.monotonic()
    with log.open("wb") as file:
        process = start(command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        try:
            while process.poll() is None and time.monotonic() - began < limit:
                if stop.is_set():
                    raise StoppedError
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GLANCE_SECONDS)
            status = process.returncode
        finally:
            # It leads a group: its children are in there, also those that it has left behind.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - began
    return Finished(status, log.read_text(encoding="utf-8", errors="replace"), seconds)
