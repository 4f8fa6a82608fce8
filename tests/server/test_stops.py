"""Clients of one address stop their replies by closing the connection and by an abort without a genkey."""

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from server import stops
from server.stops import KeylessStops
from tests.server.clients.running import LONG, running
from tests.server.live import PATIENCE, LiveServer, read_answer, wait_for

ABORT = "/api/extra/abort"
STREAM = "/api/extra/generate/stream"
GENERATE = "/api/v1/generate"
DONE = {"success": "true", "done": "true"}
NOTHING = {"success": "false", "done": "false"}
TOKENS = 300
OTHERS = LONG | {"max_length": TOKENS}


def end(connection: socket.socket) -> None:
    """Close it as a client does that leaves: also the test's other handle of it."""
    connection.shutdown(socket.SHUT_RDWR)


def whole(connection: socket.socket) -> bool:
    """Whether a reply goes to the end of its tokens."""
    return bool(read_answer(connection).json["results"][0]["completion_tokens"] == TOKENS)


@pytest.fixture(autouse=True)
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed connection counts as long as a busy machine takes for the next request."""
    monkeypatch.setattr(stops, "BEFORE_SECONDS", PATIENCE)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aborts wait for closed connections as long as it takes."""
    monkeypatch.setattr(stops, "AFTER_SECONDS", PATIENCE)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aborts do not wait."""
    monkeypatch.setattr(stops, "AFTER_SECONDS", 0.0)


@pytest.mark.usefixtures("hasty")
def test_closed_then_aborted(server: LiveServer) -> None:
    with running(server, STREAM, LONG) as mine, running(server, GENERATE, OTHERS) as others:
        end(mine)
        wait_for(lambda: server.service.status().open == 1)
        assert server.post(ABORT).json == DONE
        assert whole(others)


@pytest.mark.usefixtures("patient")
def test_aborted_then_closed(server: LiveServer) -> None:
    before = server.worker.snapshot().requests_aborted
    with running(server, STREAM, LONG) as mine, running(server, GENERATE, OTHERS) as others:
        assert server.post(ABORT).json == DONE
        end(mine)
        assert whole(others)
    server.wait_until_idle()
    assert server.worker.snapshot().requests_aborted - before == 1


@pytest.mark.usefixtures("patient")
def test_two_stop_and_one_goes_on(server: LiveServer) -> None:
    with (
        running(server, STREAM, LONG) as first,
        running(server, STREAM, LONG) as second,
        running(server, GENERATE, OTHERS) as others,
    ):
        assert server.post(ABORT).json == DONE
        end(first)
        wait_for(lambda: server.service.status().open == 2)
        end(second)
        wait_for(lambda: server.service.status().open == 1)
        assert server.post(ABORT).json == DONE
        assert whole(others)


@pytest.mark.usefixtures("hasty")
def test_nobody_closes(server: LiveServer) -> None:
    with running(server, STREAM, LONG) as first, running(server, GENERATE, LONG) as second:
        assert server.post(ABORT).json == DONE
        assert read_answer(first).status == read_answer(second).status == 200
    server.wait_until_idle()
    assert server.post(ABORT).json == NOTHING, "they had read their replies to the end"


@pytest.mark.usefixtures("hasty")
def test_a_closed_connection_satisfies_one_abort(server: LiveServer) -> None:
    with running(server, STREAM, LONG):
        pass
    server.wait_until_idle()
    with running(server, STREAM, LONG) as others:
        assert server.post(ABORT).json == DONE
        assert server.worker.snapshot().running == 1
        assert server.post(ABORT).json == DONE
        assert read_answer(others).status == 200


@pytest.mark.usefixtures("hasty")
def test_a_reply_that_an_abort_ended_counts_for_no_other(server: LiveServer) -> None:
    with running(server, STREAM, LONG):
        assert server.post(ABORT).json == DONE
        wait_for(lambda: server.worker.snapshot().running == 0)
    server.wait_until_idle()
    assert server.post(ABORT).json == NOTHING


def test_those_with_a_genkey_are_no_part_of_it(server: LiveServer) -> None:
    with running(server, STREAM, LONG | {"genkey": "KCPP4711"}):
        pass
    server.wait_until_idle()
    assert server.post(ABORT).json == NOTHING


@pytest.mark.usefixtures("hasty")
def test_a_page_ends_and_reads_what_it_has_sent_itself(server: LiveServer) -> None:
    check, page = "/api/extra/generate/check", {"Origin": "http://one.example"}
    with running(server, STREAM, LONG) as mine, running(server, STREAM, LONG, **page) as theirs:
        assert server.post(check, None, Origin="http://two.example").json == {"results": [{"text": ""}]}
        assert server.post(ABORT, None, Origin="http://two.example").json == NOTHING
        assert server.post(ABORT, None, **page).json == DONE
        assert read_answer(theirs).status == 200
        assert server.worker.snapshot().running == 1
        assert server.post(ABORT).json == DONE, "a program speaks for its whole address"
        assert read_answer(mine).status == 200


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr("server.stops.time", SimpleNamespace(monotonic=lambda: now[0]))
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_what_was_closed_long_ago(clock: Callable[[float], None]) -> None:
    found = KeylessStops()
    found.note_closed("a", object())
    clock(stops.BEFORE_SECONDS + 0.1)
    found.note_closed("a", object())
    clock(stops.BEFORE_SECONDS - 0.1)
    assert not found.is_satisfied("b")
    assert found.is_satisfied("a")
    assert not found.is_satisfied("a")


@pytest.mark.usefixtures("hasty")
def test_a_call_that_began_after_the_abort_is_not_meant() -> None:
    ended: list[str] = []

    async def stop() -> None:
        found, old, new = KeylessStops(), object(), object()
        found.end_unless_closed("a", [old], lambda: ended.append("old"))
        found.note_closed("a", new)
        found.note_closed("b", old)
        while not ended:
            await asyncio.sleep(0)
        assert found.is_satisfied("a")

    asyncio.run(stop())
    assert ended == ["old"]
