"""A request that the engine refuses to go on with: each dialect says so in its own way."""

import json
from typing import Any

import pytest

from engine.types import FinishReason
from tests.engine.grammar.ambiguous import AMBIGUOUS
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer

HELLO: Any = [{"role": "user", "content": "hello"}]
ASKING: dict[str, dict[str, Any]] = {
    "/api/v1/generate": {"prompt": "hello", "max_length": 40},
    "/v1/completions": {"prompt": "hello", "max_tokens": 40},
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 40},
    "/v1/messages": {"messages": HELLO, "max_tokens": 40},
    "/v1/responses": {"input": "hello", "max_output_tokens": 40},
    "/api/chat": {"messages": HELLO, "stream": False},
    "/api/generate": {"prompt": "hello", "stream": False},
}
GRAMMAR: Any = {"grammar": AMBIGUOUS, "ban_eos_token": True}
REASON = "the grammar is too ambiguous"


@pytest.mark.parametrize("path", ["/api/v1/generate", "/v1/completions", "/v1/chat/completions"])
def test_an_ambiguous_grammar_is_a_bad_request_and_the_engine_goes_on(path: str, server: LiveServer) -> None:
    answer = server.post(path, ASKING[path] | GRAMMAR)
    assert answer.status == 400
    assert REASON in answer.body.decode()
    assert server.post("/api/v1/generate", ASKING["/api/v1/generate"]).status == 200


@pytest.mark.parametrize("path", ASKING)
def test_a_whole_answer_is_a_bad_request(path: str, scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say("Hi", FinishReason.ERROR, REASON, refused=True)
    answer = server.post(path, ASKING[path])
    assert answer.status == 400
    assert REASON in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/completions", "invalid_request_error"),
        ("/v1/chat/completions", "invalid_request_error"),
        ("/v1/messages", "invalid_request_error"),
        ("/v1/responses", "invalid_prompt"),
        ("/api/chat", ""),
    ],
)
def test_a_stream_ends_with_an_error(
    path: str, kind: str, scripted: tuple[LiveServer, ScriptedWorker]
) -> None:
    server, worker = scripted
    worker.say("Hi", FinishReason.ERROR, REASON, refused=True)
    answer = server.post(path, ASKING[path] | {"stream": True})
    said = answer.body.decode()
    assert answer.status == 200
    assert REASON in said
    assert kind in said
    assert "server_error" not in said
    assert "api_error" not in said


def test_the_native_stream_says_that_it_failed(server: LiveServer) -> None:
    answer = server.post("/api/extra/generate/stream", ASKING["/api/v1/generate"] | GRAMMAR)
    lines = answer.body.decode().splitlines()
    pieces = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert pieces[-1]["finish_reason"] == "error"
