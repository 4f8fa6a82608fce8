"""The scripted worker hears what the engine would hear: whose client has left, and what is aborted."""

import json
from collections.abc import Iterator

import pytest

from tests.server.calls import CALLS, Call
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer, read_answer, wait_for

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def server(scripted: tuple[LiveServer, ScriptedWorker]) -> Iterator[LiveServer]:
    """Its replies stop behind their first piece."""
    server, worker = scripted
    worker.say("Good morning to you.", pausing=True)
    worker.asked.clear()
    worker.aborted.clear()
    yield server
    worker.go_on()
    server.wait_until_idle()


@pytest.fixture
def worker(scripted: tuple[LiveServer, ScriptedWorker]) -> ScriptedWorker:
    return scripted[1]


@every_call
def test_every_reply_of_a_client_that_leaves_is_aborted(
    server: LiveServer, worker: ScriptedWorker, call: Call
) -> None:
    with server.send("POST", call.path, json.dumps(call.body()).encode()):
        wait_for(lambda: len(worker.under_way) == call.count)
    wait_for(lambda: len(worker.aborted) == call.count)
    assert sorted(worker.aborted) == sorted(request.request_id for request in worker.asked)


@every_call
def test_an_aborted_reply_ends_as_the_dialect_says(
    server: LiveServer, worker: ScriptedWorker, call: Call
) -> None:
    with server.send("POST", call.path, json.dumps(call.body("KCPP1")).encode()) as connection:
        wait_for(lambda: len(worker.under_way) == call.count)
        assert server.post("/api/extra/abort", {"genkey": "KCPP1"}).json["success"] == "true"
        answer = read_answer(connection)
    assert call.finish(answer) == [call.aborted] * call.count
    assert len(worker.aborted) == call.count


def test_a_reply_that_ends_by_itself_is_not_aborted(server: LiveServer, worker: ScriptedWorker) -> None:
    worker.go_on()
    assert server.post("/api/v1/generate", {"prompt": "x"}).json["results"][0]["finish_reason"] == "stop"
    assert worker.aborted == []
