"""Bodies whose values are many: refused, or read beside the streams of others."""

import json
import threading

from tests.server.live import LiveServer

GENERATE = "/api/v1/generate"


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
