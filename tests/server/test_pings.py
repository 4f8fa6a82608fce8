"""Streams that wait say that they are alive, in every dialect that has a way to."""

import json
from collections.abc import Iterator

import pytest

from server.settings import Settings
from server.wire import sse
from tests.server.calls import CALLS, Call
from tests.server.clients.running import LONG, running
from tests.server.live import LiveServer, serving_alone

WANTED = 3
STREAMS = {name: call for name, call in CALLS.items() if name.endswith("-stream")}
LINES = {name: STREAMS.pop(name) for name in list(STREAMS) if name.startswith("ollama")}


@pytest.fixture(scope="module")
def narrow(tiny_settings: Settings) -> Iterator[LiveServer]:
    """A server whose engine computes one generation at a time."""
    settings = tiny_settings.model_copy(update={"parallelrequests": 1, "multiuser": 8, "contextsize": 8192})
    with serving_alone(settings) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)


@pytest.mark.parametrize("call", STREAMS.values(), ids=STREAMS)
def test_a_stream_that_waits_sends_comments(narrow: LiveServer, call: Call) -> None:
    body = json.dumps(call.body()).encode()
    with running(narrow, "/api/v1/generate", LONG), narrow.send("POST", call.path, body) as connection:
        received = b""
        while received.count(b": ping\n\n") < WANTED:
            received += connection.recv(1 << 16)
    assert b"200 OK" in received
    events = received.partition(b"\r\n\r\n")[2]
    assert events.count(b"data:") <= 2, "the opening of some dialects, and no text"
    narrow.wait_until_idle()


@pytest.mark.parametrize("call", LINES.values(), ids=LINES)
def test_lines_have_no_comments(narrow: LiveServer, call: Call) -> None:
    with narrow.send("POST", call.path, json.dumps(call.body()).encode()) as connection:
        received = b""
        while received.count(b"\n") < 40:
            received += connection.recv(1 << 16)
    assert b"ping" not in received
    narrow.wait_until_idle()
