import os
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest

from tests.mutants.running import Finished, StoppedError, run


def ran(folder: Path, command: Sequence[str], limit: float = 60.0, stop: Event | None = None) -> Finished:
    stop = Event() if stop is None else stop
    return run(command, cwd=folder, env=os.environ, limit=limit, log=folder / "log", stop=stop)


def test_status_and_output(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd()); print('wrong', file=sys.stderr); sys.exit(3)"
    finished = ran(tmp_path, [sys.executable, "-c", code])
    assert finished.status == 3
    assert sorted(finished.output.split()) == sorted([str(tmp_path), "wrong"])


def test_a_command_over_the_limit_is_ended(tmp_path: Path) -> None:
    assert ran(tmp_path, ["sleep", "600"], limit=0.1).status is None


def test_what_it_leaves_behind_is_ended(tmp_path: Path) -> None:
    fifo = tmp_path / "open"
    os.mkfifo(fifo)
    # Both ends, or opening it would wait for the other one.
    held = os.open(fifo, os.O_RDWR)
    assert ran(tmp_path, ["sh", "-c", f"sleep 600 > {fifo} &"]).status == 0
    with fifo.open("rb") as file:
        os.close(held)
        assert file.read() == b""


def test_nobody_waits_any_more(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(StoppedError):
        ran(tmp_path, ["sleep", "600"], stop=stop)
