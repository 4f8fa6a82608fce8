"""Whoever sends or takes nothing loses the connection; whoever is only slow does not."""

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from engine.types import FinishReason
from engine.worker import EngineWorker
from server.http.limits import ConnectionLimits
from server.settings import Settings
from tests.server.http.connections import (
    HALF_BODY,
    MUCH,
    REQUEST,
    paced,
    read_reply,
    read_to_end,
    reluctant,
    trickle,
    wait_until_cut_off,
)
from tests.server.live import LiveServer, read_answer, serving, wait_for
from tests.server.test_ssl import OPENSSL, make_pair

SHORT = 0.2
STEADY = 2.0
"""A deadline that no slow machine misses between two steps of a quarter of a second."""

Serve = Callable[[ConnectionLimits], AbstractContextManager[LiveServer]]


@pytest.fixture
def serve(tiny_worker: EngineWorker, tiny_settings: Settings) -> Serve:
    @contextmanager
    def limited(limits: ConnectionLimits) -> Iterator[LiveServer]:
        with serving(tiny_worker, tiny_settings, limits) as server:
            yield server

    return limited


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pair = make_pair(tmp_path_factory.mktemp("tls"), "limits")
    return pair.certificate, pair.key


def test_a_connection_that_sends_nothing(serve: Serve) -> None:
    with serve(ConnectionLimits(idle=SHORT)) as server, server.connect() as connection:
        assert read_to_end(connection) == b""


def test_a_connection_between_two_requests(serve: Serve) -> None:
    with serve(ConnectionLimits(idle=SHORT)) as server, server.connect() as connection:
        for _ in range(2):
            connection.sendall(REQUEST)
            assert read_reply(connection).startswith(b"HTTP/1.1 200 ")
        assert read_to_end(connection) == b""


@pytest.mark.parametrize("before", [b"", REQUEST])
def test_half_a_head(serve: Serve, before: bytes) -> None:
    """Also behind a whole request, in the same packet."""
    with serve(ConnectionLimits(head=SHORT)) as server, server.connect() as connection:
        connection.sendall(before + b"GET /ping HTTP/1.1\r\nHost: ")
        said = read_to_end(connection)
    assert said.count(b"HTTP/1.1 200 ") == bool(before)
    assert said.count(b"HTTP/1.1 408 ") == 1
    assert said.endswith(b"The head of the request came too slowly.")


def test_a_head_that_never_ends(serve: Serve) -> None:
    with serve(ConnectionLimits(head=SHORT)) as server, server.connect() as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\n")
        trickle(connection, b"A: b\r\n", 0.02)


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_half_a_body(serve: Serve, framing: str) -> None:
    head = f"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
    with serve(ConnectionLimits(body=SHORT)) as server, server.connect() as connection:
        connection.sendall(head.encode() + b"1\r\n{\r\n")
        said = read_to_end(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert said.endswith(b"The body of the request came too slowly.")


def test_a_body_byte_by_byte(serve: Serve) -> None:
    limits = ConnectionLimits(body=SHORT, body_bytes=1000)
    with serve(limits) as server, server.connect() as connection:
        connection.sendall(HALF_BODY.replace(b"100", b"1000000"))
        trickle(connection, b" ", 0.02)


def test_a_slow_but_steady_body(serve: Serve) -> None:
    body = json.dumps({"prompt": "hello", "max_length": 1}).encode().ljust(64 * 18)
    head = f"POST /api/v1/generate HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    pieces = iter(range(0, len(body), 64))
    limits = ConnectionLimits(body=STEADY, body_bytes=64)
    with serve(limits) as server, server.connect() as connection:
        connection.sendall(head.encode())
        paced(lambda: connection.sendall(body[(at := next(pieces)) : at + 64]), 18, 0.25)
        assert read_answer(connection).status == 200


def test_a_client_that_was_not_asked_for_its_body_yet(serve: Serve) -> None:
    """It sends when it hears 100, and the deadline counts from there."""
    head = b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    with serve(ConnectionLimits(body=SHORT)) as server, server.connect() as connection:
        connection.sendall(head)
        said = read_to_end(connection)
    assert said.startswith(b"HTTP/1.1 100 ")
    assert b"\r\n\r\nHTTP/1.1 408 " in said


def test_a_body_that_trickles_after_its_answer(serve: Serve) -> None:
    with serve(ConnectionLimits(body=SHORT, body_bytes=1000)) as server, server.connect() as connection:
        connection.sendall(HALF_BODY.replace(b"/api/v1/generate", b"/nowhere").replace(b"100", b"1000000"))
        trickle(connection, b" ", 0.02)


def test_a_body_that_nobody_read_ends_the_connection(locked_server: LiveServer) -> None:
    with locked_server.connect() as connection:
        connection.sendall(HALF_BODY)
        assert read_to_end(connection).startswith(b"HTTP/1.1 401 ")


def test_a_client_that_reads_nothing(serve: Serve) -> None:
    with serve(ConnectionLimits(write=SHORT)) as server, reluctant(server) as connection:
        connection.sendall(MUCH)
        wait_until_cut_off(connection)


def test_a_client_that_reads_slowly(serve: Serve) -> None:
    length = 0

    def read() -> None:
        nonlocal length
        piece = connection.recv(1 << 16)
        assert piece
        length += len(piece)

    with serve(ConnectionLimits(write=STEADY)) as server, reluctant(server) as connection:
        connection.sendall(MUCH)
        paced(read, 18, 0.25)
        while length < 20 << 20:
            read()


def test_a_stream_that_nobody_reads_ends_its_generations(serve: Serve) -> None:
    """More than the kernel keeps for a client that is there and does not read."""
    wanted = {
        "prompt": "hello",
        "max_tokens": 2000,
        "n": 4,
        "logprobs": 20,
        "ban_eos_token": True,
        "stream": True,
    }
    body = json.dumps(wanted).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serve(ConnectionLimits(write=SHORT)) as server, reluctant(server) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: server.service.status().open == 4)
        server.wait_until_idle()
        assert server.worker.snapshot().last_finish is FinishReason.ABORT


@pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")
def test_a_tls_handshake_that_never_comes(
    tiny_worker: EngineWorker, tiny_settings: Settings, certificate: tuple[Path, Path]
) -> None:
    settings = tiny_settings.model_copy(update={"ssl": certificate})
    with (
        serving(tiny_worker, settings, ConnectionLimits(handshake=SHORT)) as server,
        server.connect() as connection,
    ):
        assert read_to_end(connection) == b""


@pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")
def test_tls_connections_have_the_same_deadlines(
    tiny_worker: EngineWorker, tiny_settings: Settings, certificate: tuple[Path, Path]
) -> None:
    settings = tiny_settings.model_copy(update={"ssl": certificate})
    trust = ssl.create_default_context(cafile=certificate[0])
    limits = ConnectionLimits(idle=SHORT, head=SHORT, body=SHORT)
    with serving(tiny_worker, settings, limits) as server:
        for sent, heard in ((b"", b""), (REQUEST[:10], b"HTTP/1.1 408 "), (HALF_BODY, b"HTTP/1.1 408 ")):
            with trust.wrap_socket(server.connect(), server_hostname="127.0.0.1") as connection:
                connection.sendall(sent)
                assert read_to_end(connection)[:13] == heard


@pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates")
def test_a_tls_client_that_reads_nothing(
    tiny_worker: EngineWorker, tiny_settings: Settings, certificate: tuple[Path, Path]
) -> None:
    settings = tiny_settings.model_copy(update={"ssl": certificate})
    trust = ssl.create_default_context(cafile=certificate[0])
    with (
        serving(tiny_worker, settings, ConnectionLimits(write=SHORT)) as server,
        trust.wrap_socket(reluctant(server), server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(MUCH)
        wait_until_cut_off(connection)
