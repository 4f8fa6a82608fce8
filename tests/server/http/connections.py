"""Clients that misbehave, and what they can see of the server's patience."""

import errno
import socket
import time
from collections.abc import Callable

from tests.server.live import PATIENCE, LiveServer, wait_for

REQUEST = b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF_BODY = b"POST /api/v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"

MUCH = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200
"""Requests for more than all buffers hold."""


def reluctant(server: LiveServer) -> socket.socket:
    """A connection whose kernel takes little, for a client that reads nothing by itself."""
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    connection.connect(("127.0.0.1", server.port))
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection; fails when it does not."""
    said = bytearray()
    try:
        while piece := connection.recv(1 << 16):
            said += piece
    except ConnectionResetError:
        pass
    return bytes(said)


def read_reply(connection: socket.socket) -> bytes:
    """One whole answer with a Content-Length; the connection may stay open."""
    said = bytearray()
    while b"\r\n\r\n" not in said:
        said += _some(connection)
    head, _, body = bytes(said).partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    ]
    while len(body) < lengths[0]:
        piece = _some(connection)
        said += piece
        body += piece
    return bytes(said)


def _some(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 16)
    assert piece, "the server closed the connection"
    return piece


def is_cut_off(connection: socket.socket) -> bool:
    """Whether the server has reset the connection, found out without reading."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def wait_until_cut_off(connection: socket.socket) -> None:
    """Until the server has reset the connection."""
    wait_for(lambda: is_cut_off(connection))


def trickle(connection: socket.socket, piece: bytes, pause: float) -> None:
    """Send `piece` again and again until the server has closed the connection; fails when it does not."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return
        time.sleep(pause)
    raise AssertionError("the connection stayed open")


def paced(step: Callable[[], object], times: int, pause: float) -> None:
    """Do something slow but steady."""
    for _ in range(times):
        step()
        time.sleep(pause)
