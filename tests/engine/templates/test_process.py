"""The processes that render: isolated, limited, and gone when nobody needs them."""

import gc
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from engine.errors import BusyError, EngineDeadError, RequestError, TemplateCostError
from engine.templates import limits, wire
from engine.templates.limits import Limits
from engine.templates.pool import TemplatePool
from engine.templates.process import TemplateProcess
from engine.tokenizer import ChatTemplate
from tests.engine.templates.rendering import ENDLESS, MESSAGES, PATIENCE, ROOT, gone, using, wait_for

HEAVY = (
    "torch",
    "numpy",
    "tokenizers",
    "fastapi",
    "starlette",
    "server",
    "asyncio",
    "socket",
    "ssl",
    "ctypes",
)


@pytest.fixture
def pool() -> Iterator[TemplatePool]:
    pool = TemplatePool(Limits(cpu_seconds=60))
    yield pool
    pool.close()


def rendered(pool: TemplatePool, source: str = "{{ messages[0].content }}", content: str = "hi") -> str:
    return ChatTemplate(source).render([{"role": "user", "content": content}], pool=pool)


def proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def nepal() -> str:
    """The time in a zone that no machine of ours is in."""
    return datetime.now(timezone(timedelta(hours=5, minutes=45))).strftime("%H:%M")


def command(pid: int) -> list[str]:
    # there is none yet when the process has just begun
    wait_for(lambda: proc(pid, "cmdline") != "")
    return proc(pid, "cmdline").rstrip("\0").split("\0")


def test_it_imports_nothing_heavy(pool: TemplatePool) -> None:
    rendered(pool)
    started = command(pool.pids[0])
    at = started.index("-c") + 1
    started[at] = started[at].replace("main()", "import sys; print(*sys.modules)")
    done = subprocess.run(started, stdout=subprocess.PIPE, text=True, check=True, cwd="/", env={})
    modules = set(done.stdout.split())
    assert {"jinja2", "engine.templates.sandbox"} <= modules
    assert modules.isdisjoint(HEAVY)
    assert {name for name in modules if name.startswith("engine")} <= {"engine"} | {
        f"engine.templates{part}"
        for part in ("", ".child", ".forms", ".limits", ".orders", ".sandbox", ".wire")
    }


def test_it_inherits_nothing(pool: TemplatePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "1")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        before, told, after = nepal(), rendered(pool, "{{ strftime_now('%H:%M') }}"), nepal()
    assert told in (before, after)
    [pid] = pool.pids
    # Python may add what it makes of the locale
    variables = {entry.partition("=")[0] for entry in proc(pid, "environ").split("\0") if entry}
    assert variables <= {"TZ", "LD_LIBRARY_PATH"}
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_the_kernel_limits_it(pool: TemplatePool) -> None:
    rendered(pool)
    rows = {line[:25].strip(): line[25:].split()[:2] for line in proc(pool.pids[0], "limits").splitlines()}
    assert rows["Max address space"] == [str(limits.LIMITS.memory)] * 2
    assert rows["Max open files"] == ["3", "3"]
    for name in ("Max processes", "Max file size", "Max core file size"):
        assert rows[name] == ["0", "0"]
    assert int(rows["Max cpu time"][0]) <= 62


def test_interrupts_are_for_its_owner(pool: TemplatePool) -> None:
    rendered(pool)
    [pid] = pool.pids
    os.kill(pid, signal.SIGINT)
    assert rendered(pool) == "hi"
    assert pool.pids == [pid]


def test_a_process_that_ended_unasked_is_replaced(pool: TemplatePool) -> None:
    rendered(pool)
    [pid] = pool.pids
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: proc(pid, "stat").rpartition(")")[2].split()[0] == "Z")
    assert rendered(pool) == "hi"
    assert gone(pid)
    assert pid not in pool.pids


def test_time_by_the_clock_is_bounded_too() -> None:
    pool = TemplatePool(Limits(wall_seconds=2))
    rendered(pool)
    [pid] = pool.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TemplateCostError, match=r"takes longer than 2 seconds$"):
        rendered(pool)
    assert gone(pid)
    pool.close()


OWNER = """
import threading
from engine.templates.limits import Limits
from engine.templates.pool import TemplatePool

pool = TemplatePool(Limits(cpu_seconds={seconds}))
pool.render("x", [], {{}})
threading.Thread(target=pool.render, args=({source!r}, [], {{}}), daemon=True).start()
print(*pool.pids, flush=True)
{last}
"""


@pytest.mark.parametrize("source", ["x", ENDLESS])
@pytest.mark.parametrize("killed", [True, False])
def test_it_never_outlives_its_owner(source: str, killed: bool) -> None:
    last = "threading.Event().wait()" if killed else ""
    program = OWNER.format(seconds=1 if killed else 60, source=source, last=last)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        if killed:
            if source == ENDLESS:
                wait_for(lambda: using(pid) > 0.3)
            owner.kill()
    wait_for(lambda: gone(pid))


def test_it_ends_with_its_pool() -> None:
    pool = TemplatePool()
    rendered(pool)
    [pid] = pool.pids
    del pool
    gc.collect()
    assert gone(pid)


def test_nothing_starts_before_it_is_needed() -> None:
    pool = TemplatePool()
    with pytest.raises(RequestError, match="no role"):
        ChatTemplate("x").render([{}], pool=pool)
    assert pool.pids == []
    pool.close()
    with pytest.raises(EngineDeadError):
        rendered(pool)
    pool.warm()
    assert pool.pids == []


def test_halves_of_characters_survive(pool: TemplatePool) -> None:
    assert rendered(pool, content="\ud800é\U0001d11e\0") == "\ud800é\U0001d11e\0"


def test_what_is_no_json_or_too_long_is_refused(pool: TemplatePool, monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{{ x }}")
    with pytest.raises(RequestError, match="not JSON"):
        template.render(MESSAGES, arguments={"x": object()}, pool=pool)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RequestError, match="not JSON"):
        template.render(MESSAGES, arguments={"x": deep}, pool=pool)
    monkeypatch.setattr("engine.templates.pool.MAX_REQUEST", 1000)
    with pytest.raises(RequestError, match="too long"):
        template.render(MESSAGES, arguments={"x": "x" * 1000}, pool=pool)
    assert pool.pids == []


HEADER = "__import__('struct').pack('>BI', {}, {})"
READY = HEADER.format(1, 0)
SENT: dict[str, str] = {
    "nothing": "b''",
    "no header": "b'abc'",
    "a kind that there is not": HEADER.format(200, 0),
    "a request": HEADER.format(0, 5) + " + b'abcde'",
    "a text that ends early": HEADER.format(2, 10) + " + b'x'",
    "a text that is no UTF-8": HEADER.format(2, 1) + " + b'\\xff'",
}


@pytest.mark.parametrize("sent", SENT)
def test_a_process_may_send_what_it_likes(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that a template has got out of."""
    program = f"import os; os.write(1, {READY}); os.read(0, 9999); os.write(1, {SENT[sent]})"
    monkeypatch.setattr("engine.templates.process._BOOT", program)
    pool = TemplatePool()
    with pytest.raises(TemplateCostError, match="was stopped: it ends the process that renders it"):
        rendered(pool)
    pool.close()


@pytest.mark.parametrize("header", [(2, limits.MAX_REPLY + 1), (3, limits.MAX_REASON + 1)])
def test_a_process_may_not_send_too_much(header: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended at its first word, not when it has sent everything or ends itself."""
    program = f"import os; os.write(1, {READY}); os.read(0, 9999); os.write(1, {HEADER.format(*header)})"
    monkeypatch.setattr("engine.templates.process._BOOT", program + "; os.read(0, 1)")
    pool = TemplatePool()
    with pytest.raises(TemplateCostError, match="was stopped: it ends the process that renders it"):
        rendered(pool)
    pool.close()


def test_reasons_are_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = HEADER.format(3, 2500) + r" + b'a\n b\r' * 500"
    program = f"import os; os.write(1, {READY}); os.read(0, 9999); os.write(1, {sent}); os.read(0, 1)"
    monkeypatch.setattr("engine.templates.process._BOOT", program)
    pool = TemplatePool()
    with pytest.raises(RequestError, match="refuses these messages: a b a b a") as caught:
        rendered(pool)
    pool.close()
    assert len(str(caught.value)) < 300
    assert len(str(caught.value).splitlines()) == 1


def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.templates.process._BOOT", "raise SystemExit")
    pool = TemplatePool()
    with pytest.raises(BusyError, match="does not start"):
        rendered(pool)
    pool.close()
    monkeypatch.setattr("engine.templates.process._BOOT", "import os; os.read(0, 1)")
    pool = TemplatePool(Limits(start_seconds=0.1))
    with pytest.raises(BusyError, match="does not start in time"):
        rendered(pool)
    pool.close()
    monkeypatch.setattr(sys, "executable", "/no/such/file")
    with pytest.raises(BusyError, match="no process can be started"):
        rendered(TemplatePool())


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">BI", wire.Kind.REQUEST.value, limits.MAX_REQUEST + 1),
        struct.pack(">BI", wire.Kind.TEXT.value, 2),
        struct.pack(">BI", 99, 2),
    ],
)
def test_it_ends_when_it_is_sent_what_is_no_request(sent: bytes) -> None:
    """At once: its stdin stays open."""
    process = TemplateProcess(Limits())
    started = command(process.pid)
    process.close()
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(started, cwd="/", env={}, stdin=pipe, stdout=pipe, stderr=null) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(sent)
        child.stdin.flush()
        child.wait(PATIENCE)
        assert child.stdout.read() == wire.pack(wire.Kind.READY, b"")


def test_the_owner_counts_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a process that has no timer."""
    program = f"import os; os.write(1, {READY}); os.read(0, 9999)\nwhile True: pass"
    monkeypatch.setattr("engine.templates.process._BOOT", program)
    pool = TemplatePool(Limits(cpu_seconds=0.1))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(TemplateCostError, match=r"takes longer than 0\.1 seconds of CPU time"):
        rendered(pool)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    pool.close()
