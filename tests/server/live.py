"""A real server on a free port, in a thread of the test process, around a real engine."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from engine.worker import EngineWorker
from server.client import EngineClient
from server.commands.serve import bound_socket
from server.commands.web import web_server
from server.http.limits import ConnectionLimits
from server.service import GenerationService
from server.settings import Settings

PATIENCE = 60.0
"""Seconds after which a test that waits gives up."""


@dataclass
class Answer:
    """What came back, byte for byte."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class LiveServer:
    """The address of a running server, and the engine behind it."""

    port: int
    worker: EngineWorker
    service: GenerationService

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> socket.socket:
        """Send one request, one connection; whoever calls reads the answer or hangs up."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None and "Transfer-Encoding" not in (headers or {}):
            lines.append(f"Content-Length: {len(body)}")
        connection = self.connect()
        connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))
        return connection

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send one request and read the whole answer. `body` is sent as JSON unless it is bytes."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with self.send(method, path, raw, headers) as connection:
            return read_answer(connection)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, headers)

    def wait_until_idle(self) -> None:
        """Until nothing runs and every block is back; fails when that takes too long."""
        wait_for(lambda: self.service.status().open == 0)
        wait_for(lambda: (now := self.worker.snapshot()).blocks_free == now.blocks_total)
        assert self.worker.snapshot().running == 0


def wait_for(condition: Any) -> None:
    """Poll until `condition()` holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def read_answer(connection: socket.socket) -> Answer:
    raw = bytearray()
    while chunk := connection.recv(1 << 16):
        raw += chunk
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    answer = Answer(int(first.split()[1]), headers, body)
    if answer.header("transfer-encoding") == "chunked":
        answer.body = _unchunk(body)
    return answer


def _unchunk(body: bytes) -> bytes:
    whole = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return bytes(whole)


@contextmanager
def serving(
    worker: EngineWorker,
    settings: Settings,
    limits: ConnectionLimits | None = None,
    *,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> Iterator[LiveServer]:
    """A server that stops by itself. Several may share one worker. `around`: what looks on."""
    service = GenerationService(EngineClient(worker), settings.capacity, settings.genlimit)
    ready = threading.Event()
    server = web_server(
        service, settings, limits or ConnectionLimits(), grace=2, ready=ready.set, around=around
    )
    listener = bound_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(PATIENCE), "the server did not start"
        yield LiveServer(listener.getsockname()[1], worker, service)
    finally:
        service.abort_all()
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


@contextmanager
def serving_alone(settings: Settings) -> Iterator[LiveServer]:
    """A server with a worker of its own, which ends with it."""
    worker = EngineWorker.start(settings.engine_config())
    try:
        with serving(worker, settings) as server:
            yield server
    finally:
        worker.close()
