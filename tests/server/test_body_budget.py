"""Large bodies share a number of bytes; small ones always pass."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from engine.errors import BusyError
from server.wire.body_budget import FREE_BYTES, BodyBudget
from tests.server.live import LiveServer, wait_for

GENERATE = "/api/v1/generate"


def test_what_a_body_took_comes_back() -> None:
    budget = BodyBudget(0, 100)
    with budget.open() as first:
        first.grow_to(FREE_BYTES)
        first.grow_to(FREE_BYTES + 60)
        with budget.open() as second, pytest.raises(BusyError):
            second.grow_to(FREE_BYTES + 41)
        with budget.open() as second:
            second.grow_to(FREE_BYTES + 40)
            first.grow_to(FREE_BYTES + 60)
    with budget.open() as last:
        last.grow_to(FREE_BYTES + 100)


@pytest.fixture
def crowded(server: LiveServer) -> Iterator[LiveServer]:
    """A server on which large bodies hold all their bytes."""
    body = b"x" * (31 << 20)
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(
                server.send("POST", GENERATE, headers={"Content-Length": str(len(body) + 1)})
            )
            connection.sendall(body)
        wait_for(lambda: server.ask("POST", GENERATE, b"x" * (30 << 20)).status == 503)
        yield server


def test_a_large_body_is_refused_while_others_hold_the_bytes(crowded: LiveServer) -> None:
    small = crowded.post(GENERATE, {"prompt": "hello", "max_length": 1})
    assert small.status == 200
    large = crowded.post(GENERATE, {"prompt": "hello " * 2_000_000, "max_length": 1})
    assert (large.status, large.json["detail"]["type"]) == (503, "service_unavailable")


def test_too_many_values_are_refused(server: LiveServer) -> None:
    answer = server.post(GENERATE, b'{"x": [' + b"[]," * 5_000_000 + b"[]]}")
    assert answer.status == 413
    assert "values" in answer.json["detail"]["msg"]


def test_a_stream_goes_on_beside_hostile_bodies(server: LiveServer) -> None:
    """Each body would hold the interpreter lock for seconds; the event loop still answers."""
    hostile = [
        b'{"x": [' + b"[]," * 9_000_000 + b"[]]}",
        json.dumps({"prompt": "x", "custom_token_bans": "1," * 10_000_000, "max_length": 1}).encode(),
        json.dumps(
            {"prompt": "x", "logit_bias": {str(n): 1 for n in range(200_000)}, "max_length": 1}
        ).encode(),
        json.dumps({"prompt": "x", "stop_sequence": ["a"] * 200_000, "max_length": 1}).encode(),
        json.dumps({"prompt": "a b " * 7_000_000, "max_length": 1}).encode(),
        json.dumps(
            {"prompt": "x", "dry_sequence_breakers": "[" + "1," * 9_000_000 + "1]", "max_length": 1}
        ).encode(),
    ]
    answers: list[int] = []

    def send(body: bytes) -> None:
        answers.append(server.ask("POST", GENERATE, body).status)

    threads = [threading.Thread(target=send, args=(body,)) for body in hostile]
    body = {"prompt": "hello", "max_length": 1500, "ban_eos_token": True}
    raw = json.dumps(body).encode()
    with server.send("POST", "/api/extra/generate/stream", raw) as stream:
        said = stream.recv(1 << 16)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while chunk := stream.recv(1 << 16):
            said += chunk
    assert sorted(set(answers)) in ([200, 413], [200, 413, 503])
    assert said.count(b"event: message") > 100
    assert b'"finish_reason": "length"' in said
