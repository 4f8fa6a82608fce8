"""A server that is full, and one that has no descriptors left."""

import asyncio
import json
import logging
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from engine.worker import EngineWorker
from server.http.descriptors import most_connections
from server.http.limits import CONNECTIONS, ConnectionLimits
from server.http.listener import Listener
from server.http.places import Place, Places
from server.logs import RareLog
from server.networks import Networks
from server.settings import Settings
from tests.server.http.connections import HALF_BODY, REQUEST, read_reply, read_to_end
from tests.server.live import PATIENCE, LiveServer, serving, wait_for

ROOT = Path(__file__).parents[3]


@pytest.fixture
def narrow(tiny_worker: EngineWorker, tiny_settings: Settings) -> Iterator[LiveServer]:
    with serving(tiny_worker, tiny_settings, ConnectionLimits(connections=3, young=0.0)) as server:
        yield server


def ask(connection: socket.socket) -> bytes:
    connection.sendall(REQUEST)
    return read_reply(connection)


def asking(server: LiveServer) -> socket.socket:
    """A connection whose request is being read."""
    connection = server.connect()
    connection.sendall(HALF_BODY.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
    return connection


def test_the_oldest_idle_connection_gives_way(narrow: LiveServer) -> None:
    with ExitStack() as stack:
        silent, half, kept, new = (stack.enter_context(narrow.connect()) for _ in range(4))
        assert read_to_end(silent) == b""
        half.sendall(REQUEST[:10])
        ask(kept)
        ask(new)
        ask(stack.enter_context(narrow.connect()))
        assert read_to_end(half) == b""
        ask(kept)
        ask(new)


def test_a_full_server_says_so(narrow: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        busy = [stack.enter_context(asking(narrow)) for _ in range(3)]
        for _ in range(20):  # none is reset, whichever side was first
            refused = stack.enter_context(narrow.connect())
            refused.sendall(REQUEST)
            head, _, body = stack.enter_context(refused.makefile("rb")).read().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert json.loads(body)["detail"]["type"] == "service_unavailable"
        busy[0].sendall(b" " * 100)
        assert read_reply(busy[0]).startswith(b"HTTP/1.1 500 ")
        ask(stack.enter_context(narrow.connect()))
    assert caplog.text.count("a connection was refused") == 1


def test_a_client_that_leaves_frees_its_place(narrow: LiveServer) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(asking(narrow))
        assert narrow.get("/ping").status == 503
    wait_for(lambda: narrow.get("/ping").status == 200)


class CountingSocket(socket.socket):
    """A listening socket that counts how often something is asked of it."""

    tries = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        return super().accept()


class Greeting(asyncio.Protocol):
    def __init__(self, place: Place) -> None:
        self._place = place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._place.evict = transport.abort
        transport.write(b"hello")


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """None is free below the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        free = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """The server waits instead of trying all the time, says so once, and goes on when there are some."""

    async def run() -> None:
        async with listening() as bound:
            with socket.socket() as client:
                with no_descriptors_left():
                    await connect(client, bound)
                    while bound.tries < 3:
                        await asyncio.sleep(0.01)
                assert await hear(client) == b"hello"
            assert bound.tries < 20

    asyncio.run(run())
    assert caplog.text.count("cannot accept connections: Too many open files") == 1
    assert caplog.text.count("\n") == 1


def test_idle_connections_make_room_for_descriptors() -> None:
    async def run() -> None:
        async with listening() as bound:
            with socket.socket() as idle, socket.socket() as client:
                await connect(idle, bound)
                assert await hear(idle) == b"hello"
                with no_descriptors_left():
                    await connect(client, bound)
                    assert await hear(client) == b"hello"
                assert await hear(idle) == b""

    asyncio.run(run())


@asynccontextmanager
async def listening() -> AsyncIterator[CountingSocket]:
    """A listener that greets whoever comes."""
    with CountingSocket() as bound:
        bound.bind(("127.0.0.1", 0))
        listener = Listener(bound, Greeting, Places(9, 9, Networks(()), 0.0), None, ConnectionLimits())
        listener.start()
        yield bound
        listener.close()
        await listener.wait_closed()


async def connect(client: socket.socket, server: socket.socket) -> None:
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, server.getsockname())


async def hear(client: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 5), PATIENCE)


@pytest.mark.parametrize(
    ("descriptors", "connections"), [(64, 32), (256, 128), (1024, 768), (4096, CONNECTIONS), (1, 1)]
)
def test_connections_leave_descriptors_to_files(descriptors: int, connections: int) -> None:
    assert most_connections(descriptors) == connections


@pytest.mark.parametrize(("before", "after"), [((64, 128), 128), ((128, 128), 128)])
def test_the_limit_of_descriptors_is_raised(before: tuple[int, int], after: int) -> None:
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {before})\n"
        "from server.http.descriptors import raise_descriptor_limit\n"
        "print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [str(after), str(after), str(before[1])]


def test_what_happens_often_is_logged_rarely(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = RareLog(logging.getLogger("test"), lambda: now)
    for moment in (0.0, 1.0, 59.0, 60.0, 61.0, 200.0):
        now = moment
        log.warning("trouble with %s", "files")
    assert [record.getMessage() for record in caplog.records] == [
        "trouble with files",
        "trouble with files (and 2 times before)",
        "trouble with files (and 1 times before)",
    ]
