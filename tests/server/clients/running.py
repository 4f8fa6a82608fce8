"""Requests under way: what clients do while the engine works, they do around one of these."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.server.live import LiveServer, wait_for

LONG: dict[str, Any] = {"prompt": "hello world", "max_length": 8000, "ban_eos_token": True}
"""A generation for Kobold's endpoints that fills the context: a test has to end it itself."""


@contextmanager
def running(server: LiveServer, path: str, body: dict[str, Any], **headers: str) -> Iterator[socket.socket]:
    """A request that the engine has taken and makes tokens since; yields its connection, and hangs up."""
    with _taken(server, path, body, headers) as connection:
        before = server.worker.snapshot().generated_tokens
        wait_for(lambda: server.worker.snapshot().generated_tokens > before + 3)
        yield connection


@contextmanager
def queued(server: LiveServer, path: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A request that the engine has taken and not begun; the engine must be full."""
    with _taken(server, path, body, {}) as connection:
        assert server.worker.snapshot().waiting
        yield connection


@contextmanager
def _taken(
    server: LiveServer, path: str, body: dict[str, Any], headers: dict[str, str]
) -> Iterator[socket.socket]:
    before = server.worker.snapshot().requests_added
    with server.send("POST", path, json.dumps(body).encode(), headers) as connection:
        wait_for(lambda: server.worker.snapshot().requests_added > before)
        yield connection
