"""Hostile templates end within their limits, and whoever renders them notices nothing but an error."""

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ModelFileError, RequestError
from engine.templates.limits import LIMITS, MAX_SOURCE, Limits
from engine.templates.pool import TemplatePool
from engine.tokenizer import ChatTemplate
from tests.engine.templates.hostile import hostile_templates
from tests.support.environment import FULL

TEMPLATES = dict(hostile_templates())
CHOSEN = list(TEMPLATES) if FULL else list(TEMPLATES)[:: len(TEMPLATES) // 40]
SMALL = LIMITS if FULL else Limits(cpu_seconds=0.1, memory=256 << 20)
TOLERANCE = 0.5
"""Seconds of CPU time: until the owner's thread runs, and for the end of a process with much memory."""
FLAT = 300 << 20
"""Bytes that the largest prompt may take, sent and received: templates themselves take gigabytes."""
MESSAGES = [{"role": "user", "content": "hi"}]


class Witness:
    """A thread of the process that renders. It counts, and looks at the memory."""

    def __init__(self) -> None:
        self.count = 0
        self.most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.001):
            self.count += 1
            self.most = max(self.most, resident())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ended_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def pool() -> Iterator[TemplatePool]:
    pool = TemplatePool(SMALL)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()


def test_there_are_many() -> None:
    assert len(TEMPLATES) >= 300
    assert all(len(source) <= MAX_SOURCE for source in TEMPLATES.values()), (
        "they are not refused for their size"
    )


@pytest.mark.parametrize("name", CHOSEN)
def test_templates_end_and_others_go_on(name: str, pool: TemplatePool, witness: Witness) -> None:
    assert ChatTemplate("{{ messages[0].content }}").render(MESSAGES, pool=pool) == "hi"
    [pid] = pool.pids
    used, ended, counted, size = cpu_seconds(pid), ended_cpu_seconds(), witness.count, resident()
    witness.most = size
    try:
        ChatTemplate(TEMPLATES[name]).render(MESSAGES, pool=pool)
    except (RequestError, ModelFileError) as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 400
    if pool.pids == [pid]:
        spent = cpu_seconds(pid) - used
    else:
        spent = ended_cpu_seconds() - ended - used
        assert not Path(f"/proc/{pid}").exists(), "it is ended, and not left as a zombie"
        assert witness.count > counted, "the interpreter lock was free"
    assert spent < SMALL.cpu_seconds + TOLERANCE
    assert witness.most - size < FLAT
    assert ChatTemplate("{{ messages[0].content }}").render(MESSAGES, pool=pool) == "hi"
