"""What tests of rendering share: a template that never ends, and a look at other processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 30.0
"""Seconds after which a test that waits gives up."""
MESSAGES = [{"role": "user", "content": "hi"}]
ENDLESS = (
    "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}"
)
"""One comparison, in C."""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether there is no such process; one that only its parent has to hear of counts as none."""
    state = _fields(pid)
    return not state or (state[0] == "Z" and int(state[1]) != os.getpid())


def using(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def children(pid: int) -> list[int]:
    """The ids of the processes that a process has started."""
    others = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [other for other in others if (fields := _fields(other)) and int(fields[1]) == pid]


def _fields(pid: int) -> list[str]:
    """What follows the name in the kernel's line about a process; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
