"""Prompts that the context cannot hold: what is left out, who hears of it, and how it is forbidden."""

import json
from typing import Any

import pytest

from tests.server.live import LiveServer

CONTEXT = 2048
LONG = "hello world the to " * 1000
MESSAGES = [{"role": "user", "content": LONG}]

BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": LONG},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/responses": {"input": LONG, "store": False},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
    "/api/chat": {"messages": MESSAGES, "stream": False, "options": {"num_predict": 4}},
    "/api/generate": {"prompt": LONG, "stream": False, "options": {"num_predict": 4}},
}
SHORT = {"max_tokens": 4, "max_output_tokens": 4}
FORBIDDEN = {"truncation": "disabled", "truncate": False}
every_path = pytest.mark.parametrize("path", BODIES)


def usage_of(path: str, answer: Any) -> tuple[int, int]:
    """Tokens of the prompt that the model has read, and those that were left out."""
    if path.startswith("/api/"):
        return answer["prompt_eval_count"], answer.get("prompt_left_out_count", 0)
    usage = answer["usage"]
    if path == "/v1/messages":
        read = usage["input_tokens"] + usage["cache_read_input_tokens"]
        return read, usage.get("left_out_input_tokens", 0)
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    read = usage.get("prompt_tokens") or usage["input_tokens"]
    return read, details.get("left_out_tokens", 0)


@every_path
def test_usage_tells_what_was_read_and_what_was_left_out(server: LiveServer, path: str) -> None:
    answer = server.post(path, BODIES[path] | SHORT)
    assert answer.status == 200
    read, left_out = usage_of(path, answer.json)
    assert CONTEXT // 2 < read <= CONTEXT
    whole = len(server.worker.encode(LONG))
    assert whole <= read + left_out < whole + 100, "a template writes some words, too"


@every_path
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_may_not_be_cut_is_refused(server: LiveServer, path: str, stream: bool) -> None:
    answer = server.post(path, BODIES[path] | SHORT | FORBIDDEN | {"stream": stream})
    assert answer.status == 400
    error = answer.json["error"]
    if path.startswith("/api/"):
        assert "exceeds the available context size (2048 tokens)" in error
    elif path == "/v1/messages":
        assert (error["type"], answer.json["type"]) == ("invalid_request_error", "error")
        assert error["message"].startswith("prompt is too long: ")
        assert error["message"].endswith(" tokens > 2048 maximum")
    else:
        assert (error["type"], error["n_ctx"]) == ("exceed_context_size_error", CONTEXT)
        assert error["n_prompt_tokens"] > CONTEXT
        assert error["message"] == (
            f"request ({error['n_prompt_tokens']} tokens) exceeds the available context size (2048 tokens), "
            "try increasing it"
        )


@every_path
def test_a_prompt_that_fits_may_be_forbidden_to_be_cut(server: LiveServer, path: str) -> None:
    """The reply is shortened then: 1,900 tokens leave little of 2,048 to it."""
    body = json.loads(json.dumps(BODIES[path]).replace(LONG, "hello world the to " * 470))
    much = {"max_tokens": 1000, "max_output_tokens": 1000, "options": {"num_predict": 1000}}
    answer = server.post(path, body | much | FORBIDDEN)
    assert answer.status == 200
    read, left_out = usage_of(path, answer.json)
    assert read > 1800
    assert left_out == 0


def test_kobolds_clients_hear_of_it_by_perf(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "server.service"):
        server.post("/api/v1/generate", {"prompt": LONG, "max_length": 4})
    left_out = len(server.worker.encode(LONG)) - (CONTEXT - 4)
    assert server.get("/api/extra/perf").json["last_input_left_out"] == left_out
    [line] = [record.getMessage() for record in caplog.records]
    assert f"was cut to {CONTEXT - 4}" in line
    server.post("/api/v1/generate", {"prompt": "hello", "max_length": 4})
    assert server.get("/api/extra/perf").json["last_input_left_out"] == 0
