"""How much of a body is read, by whom it is sent and what for."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from engine.errors import BusyError
from server.settings import Settings
from server.wire import body_budget
from server.wire.body_budget import FREE_BYTES, BodyBudget
from server.wire.body_limits import SCHEMA_BODY, SMALL_BODY, TEXT_BODY
from tests.server.clients.running import LONG, running
from tests.server.http.connections import reluctant
from tests.server.live import LiveServer, read_answer, serving, wait_for

MB = 1 << 20


@contextmanager
def declared(server: LiveServer, path: str, size: int, sent: bytes = b"") -> Iterator[socket.socket]:
    """A request with a body of that size, of which no more is sent than `sent`."""
    with server.connect() as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {size}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + sent)
        yield connection


@pytest.mark.parametrize(
    ("path", "limit", "shown"),
    [
        ("/api/extra/abort", SMALL_BODY, "64KB"),
        ("/api/extra/generate/check", SMALL_BODY, "64KB"),
        ("/api/extra/last_logprobs", SMALL_BODY, "64KB"),
        ("/api/extra/data/load", SMALL_BODY, "64KB"),
        ("/api/nkat/theta", SMALL_BODY, "64KB"),
        ("/api/show", SMALL_BODY, "64KB"),
        ("/api/extra/json_to_grammar", SCHEMA_BODY, "1MB"),
        ("/api/v1/generate", 32 * MB, "32MB"),
        ("/v1/chat/completions", 32 * MB, "32MB"),
        ("/api/extra/data/save", 32 * MB, "32MB"),
    ],
)
def test_a_body_over_its_endpoints_bound_is_refused_from_the_head(
    server: LiveServer, path: str, limit: int, shown: str
) -> None:
    with declared(server, path, limit + 1) as connection:
        assert f"Max payload size is {shown}." in read_answer(connection).body.decode()
    body = b"{}".ljust(min(limit, MB))
    assert "payload" not in server.post(path, body).body.decode()


@pytest.mark.parametrize("path", ["/api/extra/tokencount", "/api/extra/tokenize", "/api/extra/detokenize"])
def test_texts_to_count_have_a_bound_of_their_own(
    server: LiveServer, tiny_settings: Settings, path: str
) -> None:
    assert server.post(path, b"{}".ljust(MB)).status == 200
    with declared(server, path, TEXT_BODY + 1) as connection:
        assert read_answer(connection).status == 400
    with serving(server.worker, tiny_settings.model_copy(update={"maxrequestsize": 1})) as small:
        assert small.post(path, b"{}".ljust(MB + 1)).status == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sdapi/v1/txt2img", 200),
        ("/sdapi/v1/interrogate", 503),
        ("/api/extra/transcribe", 200),
        ("/v1/audio/speech", 503),
        ("/api/extra/data/list", 401),
        ("/api/v1/generate", 401),
        ("/nowhere", 404),
    ],
)
def test_a_body_that_is_not_needed_is_not_waited_for(
    recorded_key_server: LiveServer, path: str, status: int
) -> None:
    """However large it is said to be."""
    with declared(recorded_key_server, path, 31 * MB, b"no JSON") as connection:
        assert read_answer(connection).status == status


def test_large_bodies_are_held_up_to_a_bound(
    server: LiveServer, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones find room all the same, and so do all when a large one is gone."""
    monkeypatch.setattr(body_budget, "LARGE_BYTES", 4 * MB)
    settings = tiny_settings.model_copy(update={"maxrequestsize": 1})
    large = {"prompt": "a", "max_length": 1, "filler": "x" * (MB - 200)}
    with serving(server.worker, settings) as small, ExitStack() as stack:
        held = [
            stack.enter_context(running(small, "/api/v1/generate", LONG | {"filler": "x" * (MB - 200)}))
            for _ in range(4 * MB // (MB - FREE_BYTES))
        ]
        assert small.post("/api/v1/generate", large).status == 503
        assert small.post("/api/v1/generate", large | {"filler": ""}).status == 200
        held[0].close()
        wait_for(lambda: small.post("/api/v1/generate", large).status == 200)


def test_one_address_leaves_room_for_others() -> None:
    budget = BodyBudget(100, 800)
    mine = [budget.open("10.0.0.1") for _ in range(5)]
    for share in mine[:4]:
        share.grow_to(FREE_BYTES + 100)
    with pytest.raises(BusyError):
        mine[4].grow_to(FREE_BYTES + 1)
    budget.open("10.0.0.2").grow_to(FREE_BYTES + 100)
    with mine[0]:
        pass
    mine[4].grow_to(FREE_BYTES + 100)


def test_this_machine_has_all_there_is_and_no_more() -> None:
    budget = BodyBudget(100, 800)
    for _ in range(8):
        budget.open().grow_to(FREE_BYTES + 100)
    for owner in (None, "10.0.0.2"):
        with budget.open(owner) as share:
            share.grow_to(FREE_BYTES)
            with pytest.raises(BusyError):
                share.grow_to(FREE_BYTES + 1)


def test_there_is_room_for_one_body_of_the_largest_size() -> None:
    budget = BodyBudget(10_000, 800)
    with budget.open("10.0.0.1") as share:
        share.grow_to(FREE_BYTES + 10_000)
        with pytest.raises(BusyError):
            budget.open().grow_to(FREE_BYTES + 1)


def test_a_body_counts_until_its_answer_is_taken(
    server: LiveServer, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is as large, and stays in memory while its client does not read."""
    monkeypatch.setattr(body_budget, "LARGE_BYTES", 8 * MB)
    settings = tiny_settings.model_copy(update={"maxrequestsize": 2})
    body = json.dumps({"prompt": "\u2028" * 300_000, "special": False}).encode()
    head = f"POST /api/extra/tokencount HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(server.worker, settings) as small, ExitStack() as stack:
        room = 8 * MB // (len(body) - FREE_BYTES)
        asking = [stack.enter_context(reluctant(small)) for _ in range(room)]
        for connection in asking:
            connection.sendall(head.encode() + body)
            assert connection.recv(1, socket.MSG_PEEK), "the answer is being written"
        assert small.post("/api/extra/tokencount", body).status == 503
        asking[0].close()
        wait_for(lambda: small.post("/api/extra/tokencount", body).status == 200)
