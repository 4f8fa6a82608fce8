import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.peer import PeerError
from benchmarks.sizes import STREAM_TOKENS, STREAMS
from benchmarks.streams import answers, stream_all


class _Handler(BaseHTTPRequestHandler):
    made = STREAM_TOKENS
    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
        events = [{"choices": [{"text": "a"}]}] * self.made
        for event in [*events, {"choices": [], "usage": {"completion_tokens": self.made}}]:
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _server(made: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    bodies: list[dict[str, Any]] = []
    handler = type("Handler", (_Handler,), {"made": made, "bodies": bodies})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], bodies
        finally:
            server.shutdown()
            thread.join()


def test_all_streams_are_asked_for_different_prompts() -> None:
    with _server(STREAM_TOKENS) as (port, bodies):
        assert stream_all(port, seed=1) > 0
        assert stream_all(port, seed=2) > 0
    assert len({body["prompt"] for body in bodies}) == 2 * STREAMS
    assert all(body["ignore_eos"] and body["bypass_eos"] and body["stream"] for body in bodies)


def test_streams_that_end_early_are_no_measurement() -> None:
    with _server(3) as (port, _), pytest.raises(PeerError, match=f"made {3 * STREAMS} tokens"):
        stream_all(port, seed=1)


def test_a_server_that_is_not_there_does_not_answer() -> None:
    with _server(1) as (port, _):
        assert answers(port)
    assert not answers(port)
