import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.processes import busy_core, end, start

PARENT = """
import os, signal
from benchmarks.processes import start
print(start(["sleep", "60"]).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_ignores_the_gentle_way_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes._GRACE_SECONDS", 0.1)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    process = start([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    end(process)
    assert process.returncode == -signal.SIGKILL


def test_a_process_dies_with_its_parent() -> None:
    parent = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, timeout=20)
    assert parent.returncode == -signal.SIGKILL
    assert _gone(int(parent.stdout))


def test_a_core_is_busy_for_the_while() -> None:
    before = os.times().children_user
    with busy_core():
        time.sleep(0.5)
    assert os.times().children_user > before


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
