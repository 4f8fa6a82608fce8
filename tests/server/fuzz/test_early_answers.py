"""Answers that do not wait for the body: whoever still sends hears them all the same."""

import socket

import pytest

from server.middleware import lingering
from tests.server.fuzz.exchange import exchange
from tests.server.http.connections import trickle
from tests.server.live import LiveServer, read_answer

LARGE = b"x" * (8 << 20)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/v1/generate", 401),
        ("POST", "/v1/messages", 401),
        ("POST", "/nowhere", 404),
        ("GET", "/api/extra/perf", 200),
        ("PUT", "/api/v1/generate", 501),
        ("OPTIONS", "/api/v1/generate", 200),
        ("POST", "/v1/audio/speech", 503),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body(locked_server: LiveServer, method: str, path: str, status: int, chunked: bool) -> None:
    heard = exchange(locked_server.port, method, path, LARGE, chunked=chunked)
    assert heard.status == status
    assert heard.headers["access-control-allow-origin"] == "*"


def test_a_body_over_the_limit(fuzzed: LiveServer) -> None:
    heard = exchange(fuzzed.port, "POST", "/api/v1/generate", LARGE)
    assert heard.json["detail"]["msg"] == "Payload is too big. Max payload size is 4MB."


def test_a_body_that_never_comes(locked_server: LiveServer) -> None:
    """The server ends the answer by itself: else the client's patience would, as an error."""
    with locked_server.send("POST", "/v1/messages", headers={"Content-Length": "1000"}) as connection:
        assert read_answer(connection).status == 401


def test_a_body_that_comes_slowly(locked_server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read in vain for ever, even if it always grows."""
    monkeypatch.setattr(lingering, "LONGEST", 0.2)
    with locked_server.send("POST", "/v1/messages", headers={"Content-Length": "1000000"}) as connection:
        trickle(connection, b" ", 0.02)


def test_a_client_that_asks_before_it_sends(locked_server: LiveServer) -> None:
    headers = {"Content-Length": "1000", "Expect": "100-continue"}
    with locked_server.send("POST", "/v1/messages", headers=headers) as connection:
        assert read_answer(connection).status == 401


def test_a_client_that_hangs_up_while_it_sends(fuzzed: LiveServer) -> None:
    with fuzzed.send("POST", "/sdapi/v1/interrogate", headers={"Content-Length": "1000"}) as connection:
        connection.sendall(b"{")
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(connection).status == 503
