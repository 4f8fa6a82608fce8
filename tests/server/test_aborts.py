"""Generations that are ended from outside, in every dialect: the engine has everything back, and says so."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.engine import Engine
from engine.templates.pool import TemplatePool
from engine.types import FinishReason, GenerationRequest
from engine.worker import EngineWorker
from server.settings import Settings
from server.stops import KeylessStops
from tests.server.calls import CALLS, Call
from tests.server.clients.running import LONG, running
from tests.server.live import PATIENCE, Answer, LiveServer, read_answer, serving, wait_for

ABORT = "/api/extra/abort"
DONE = {"success": "true", "done": "true"}
NOTHING = {"success": "false", "done": "false"}
KEY = "KCPP4711"
OTHER = "KCPP0815"

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
with_and_without_a_key = pytest.mark.parametrize("genkey", ["", KEY], ids=["keyless", "genkey"])


class GatedWorker(EngineWorker):
    """The real engine, whose preparation of a request waits while the gate is closed."""

    def __init__(self, engine: Engine, templates: TemplatePool | None = None) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered, self.left = 0, 0
        super().__init__(engine, templates)

    def prepare(self, request: GenerationRequest) -> GenerationRequest:
        self.entered += 1
        assert self.gate.wait(PATIENCE)
        try:
            return super().prepare(request)
        finally:
            self.left += 1


@pytest.fixture(scope="module")
def narrow_settings(tiny_settings: Settings) -> Settings:
    """One generation at a time: all others wait."""
    return tiny_settings.model_copy(
        update={"parallelrequests": 1, "multiuser": 8, "contextsize": 8192, "defaultgenamt": 8000}
    )


@pytest.fixture(scope="module")
def gated_worker(narrow_settings: Settings) -> Iterator[GatedWorker]:
    worker = GatedWorker.start(narrow_settings.engine_config())
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def open_narrow(gated_worker: GatedWorker, narrow_settings: Settings) -> Iterator[LiveServer]:
    with serving(gated_worker, narrow_settings) as server:
        yield server


@pytest.fixture
def narrow(open_narrow: LiveServer) -> Iterator[LiveServer]:
    """A server whose engine computes one generation at a time; every test leaves it idle."""
    open_narrow.service.stops = KeylessStops()
    yield open_narrow
    open_narrow.wait_until_idle()
    assert open_narrow.worker.snapshot().waiting == 0


@contextmanager
def made(server: LiveServer, call: Call, genkey: str) -> Iterator[socket.socket]:
    """A call all of whose generations make tokens; yields its connection, and hangs up."""
    with running(server, call.path, call.body(genkey)) as connection:
        wait_for(lambda: server.worker.snapshot().running == call.count)
        yield connection


@contextmanager
def waiting(server: LiveServer, call: Call, genkey: str) -> Iterator[socket.socket]:
    """A call all of whose generations wait for another one, which is there still in the end."""
    body = json.dumps(call.body(genkey)).encode()
    with running(server, "/api/v1/generate", LONG | {"genkey": OTHER}):
        with server.send("POST", call.path, body) as connection:
            wait_for(lambda: server.worker.snapshot().waiting == call.count)
            yield connection
        wait_for(lambda: server.worker.snapshot().waiting == 0)
        assert server.worker.snapshot().running == 1, "the other one goes on"
        before = server.worker.snapshot().generated_tokens
        wait_for(lambda: server.worker.snapshot().generated_tokens > before)


@contextmanager
def prepared(server: LiveServer, call: Call, genkey: str) -> Iterator[socket.socket]:
    """A call whose first prompt is being tokenised until the connection is closed or shut."""
    worker = server.worker
    assert isinstance(worker, GatedWorker)
    entered, added = worker.entered, worker.snapshot().requests_added
    worker.gate.clear()
    try:
        with server.send("POST", call.path, json.dumps(call.body(genkey)).encode()) as connection:
            wait_for(lambda: worker.entered > entered)
            yield connection
        wait_for(lambda: server.service.status().open == 0)
    finally:
        worker.gate.set()
    wait_for(lambda: worker.left == worker.entered)
    assert worker.snapshot().requests_added == added, "the engine never heard of it"


def finished(call: Call, answer: Answer) -> None:
    assert answer.status == 200
    assert call.finish(answer) == [call.aborted] * call.count


@every_call
def test_leaving_while_text_is_made(server: LiveServer, call: Call) -> None:
    before = server.worker.snapshot()
    with made(server, call, ""):
        pass
    server.wait_until_idle()
    after = server.worker.snapshot()
    assert after.requests_aborted - before.requests_aborted == call.count
    assert after.last_finish is FinishReason.ABORT


@every_call
def test_leaving_the_queue(narrow: LiveServer, call: Call) -> None:
    before = narrow.worker.snapshot().requests_aborted
    with waiting(narrow, call, ""):
        pass
    narrow.wait_until_idle()
    assert narrow.worker.snapshot().requests_aborted - before == call.count + 1, "and the one in front"


@every_call
def test_leaving_during_preparation(narrow: LiveServer, call: Call) -> None:
    with prepared(narrow, call, ""):
        pass


@with_and_without_a_key
@every_call
def test_abort_while_text_is_made(server: LiveServer, call: Call, genkey: str) -> None:
    before = server.worker.snapshot().requests_aborted
    with made(server, call, genkey) as connection:
        aborts(server, genkey)
        finished(call, read_answer(connection))
        server.wait_until_idle()
    assert server.worker.snapshot().requests_aborted - before == call.count


@with_and_without_a_key
@every_call
def test_abort_in_the_queue(narrow: LiveServer, call: Call, genkey: str) -> None:
    with waiting(narrow, call, genkey) as connection:
        aborts(narrow, genkey)
        finished(call, read_answer(connection))


@with_and_without_a_key
@every_call
def test_abort_during_preparation(narrow: LiveServer, call: Call, genkey: str) -> None:
    worker = narrow.worker
    assert isinstance(worker, GatedWorker)
    with prepared(narrow, call, genkey) as connection:
        aborts(narrow, genkey)
        worker.gate.set()
        finished(call, read_answer(connection))


def aborts(server: LiveServer, genkey: str) -> None:
    """Abort what has that genkey; what is somebody else's stays."""
    mistaken = {"genkey": "" if genkey else "KCPP0000"}
    assert server.post(ABORT, mistaken).json == NOTHING
    assert server.post(ABORT, {"genkey": genkey} if genkey else None).json == DONE
