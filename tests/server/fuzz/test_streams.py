"""Clients that leave streams, and requests, at any point: nothing may be left behind."""

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.fuzz.bodies import objects
from tests.server.fuzz.conftest import EXAMPLES
from tests.server.fuzz.operations import Operation, operations, resolved
from tests.server.live import LiveServer

STREAMS = [
    operation
    for operation in operations("POST")
    if operation.answers & {"text/event-stream", "application/x-ndjson"}
]
RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: closing resets the connection instead of ending it in good order."""

LEAVERS = st.lists(
    st.tuples(st.integers(0, 3000), st.booleans(), st.none() | st.integers(0, 200)), min_size=1, max_size=3
)
"""Clients at a time: bytes that each reads, whether it resets, and where it stops sending, if it does."""


def test_there_are_streams() -> None:
    assert {operation.tag for operation in STREAMS} == {"KoboldAI", "OpenAI", "Anthropic", "Ollama"}


def streaming(body: str) -> bytes:
    """The body of a request that wants a stream: of two fields of a name the last counts."""
    rest = body.removeprefix("{").removesuffix("}")
    return f'{{{rest}{", " if rest else ""}"stream": true}}'.encode()


@pytest.mark.parametrize("operation", STREAMS, ids=str)
def test_leaving(fuzzed: LiveServer, operation: Operation) -> None:
    @settings(settings.get_profile("fuzz"), max_examples=EXAMPLES)
    @given(objects(resolved(operation.schema)).map(streaming), LEAVERS)
    def leave(body: bytes, leavers: list[tuple[int, bool, int | None]]) -> None:
        sent = [begin(fuzzed, operation.path, body, stop) for _, _, stop in leavers]
        for connection, (heard, reset, stop) in zip(sent, leavers, strict=True):
            with connection:
                if stop is None:
                    read(connection, heard)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        fuzzed.wait_until_idle()

    leave()


def begin(server: LiveServer, path: str, body: bytes, stop: int | None) -> socket.socket:
    """A connection on which a request was sent, its body up to `stop`."""
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}"]
    connection = server.connect()
    connection.sendall("\r\n".join([*head, "", ""]).encode("ascii") + body[:stop])
    return connection


def read(connection: socket.socket, count: int) -> None:
    """So many bytes, or all that come."""
    while count > 0 and (piece := connection.recv(count)):
        count -= len(piece)
