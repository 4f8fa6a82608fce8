"""The three chat dialects over a real engine: lengths, costs, and clients that leave."""

import json
from typing import Any

import pytest

from tests.server.live import LiveServer, wait_for

HELLO: Any = [{"role": "user", "content": "hello"}]
LENGTH = 6

ASKING: dict[str, dict[str, Any]] = {
    "/v1/messages": {"messages": HELLO, "max_tokens": LENGTH, "ban_eos_token": True},
    "/v1/responses": {"input": "hello", "max_output_tokens": LENGTH, "ban_eos_token": True},
    "/api/chat": {
        "messages": HELLO,
        "stream": False,
        "options": {"num_predict": LENGTH, "ban_eos_token": True},
    },
    "/api/generate": {
        "prompt": "hello",
        "stream": False,
        "options": {"num_predict": LENGTH, "ban_eos_token": True},
    },
}
ENDLESS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"max_tokens": 1500},
    "/v1/responses": {"max_output_tokens": 1500},
    "/api/chat": {"options": {"num_predict": -1, "ban_eos_token": True}},
    "/api/generate": {"options": {"num_predict": -1, "ban_eos_token": True}},
}


def costs(answer: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt, and of the reply."""
    if "prompt_eval_count" in answer:
        return answer["prompt_eval_count"], answer["eval_count"]
    usage = answer["usage"]
    return usage["input_tokens"] + usage.get("cache_read_input_tokens", 0), usage["output_tokens"]


@pytest.mark.parametrize("path", ASKING)
def test_a_reply_costs_what_the_engine_says(path: str, server: LiveServer) -> None:
    answer = server.post(path, ASKING[path])
    assert answer.status == 200
    prompt, made = costs(answer.json)
    assert made == LENGTH
    usage = server.worker.snapshot().last_usage
    assert usage is not None
    assert (prompt, made) == (usage.prompt_tokens, usage.completion_tokens)


def test_counted_tokens_are_those_of_the_prompt(server: LiveServer) -> None:
    asked = {"messages": HELLO, "system": "Be brief."}
    counted = server.post("/v1/messages/count_tokens", asked).json["input_tokens"]
    made = server.post("/v1/messages", asked | {"max_tokens": 1}).json
    assert (counted, 1) == costs(made)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_an_agent_that_asks_for_more_than_there_is_keeps_its_history(path: str, server: LiveServer) -> None:
    turns = [{"role": role, "content": "hello world " * 20} for role in ("user", "assistant")] * 3
    turns.append({"role": "user", "content": "and now"})
    asked = {"messages": turns, "input": turns, "max_tokens": 32_000, "max_output_tokens": 32_000}
    counted = {"/v1/messages": "/v1/messages/count_tokens", "/v1/responses": "/v1/responses/input_tokens"}
    whole = server.post(counted[path], asked).json["input_tokens"]
    prompt, made = costs(server.post(path, asked | {"stop_sequence": ["e"], "grammar": 'root ::= "x"'}).json)
    assert (prompt, made > 0) == (whole, True)
    assert whole > 300


def test_a_context_is_gone_on_from_without_being_read_again(server: LiveServer) -> None:
    first = server.post("/api/generate", ASKING["/api/generate"]).json
    assert len(first["context"]) == first["prompt_eval_count"] + LENGTH
    second = server.post("/api/generate", ASKING["/api/generate"] | {"context": first["context"]}).json
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] == len(second["context"]) - LENGTH


def test_token_ids_that_the_model_does_not_have(server: LiveServer) -> None:
    answer = server.post("/api/generate", {"prompt": "x", "context": [10**8]})
    assert answer.status == 400
    assert "token ids" in answer.json["error"]


def test_a_tool_that_must_be_called_is_called(server: LiveServer) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Bern"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    function = {"name": "weather", "description": "", "parameters": schema}
    messages = {
        "messages": HELLO,
        "max_tokens": 400,
        "tools": [{"name": "weather", "input_schema": schema}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    made = server.post("/v1/messages", messages).json
    assert [(block["type"], block.get("input")) for block in made["content"]] == [
        ("tool_use", {"city": "Bern"})
    ]
    assert made["stop_reason"] == "tool_use"
    responses = {
        "input": "hello",
        "tools": [{"type": "function"} | function],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
    }
    made = server.post("/v1/responses", responses).json
    assert [(item["name"], json.loads(item["arguments"])) for item in made["output"]] == [
        ("weather", {"city": "Bern"})
    ]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("raw", [False, True])
def test_a_format_binds_the_reply(path: str, raw: bool, server: LiveServer) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"]}
    more = {"format": schema | {"additionalProperties": False}, "raw": raw, "options": {}}
    made = server.post(path, ASKING[path] | more).json
    text = made["response"] if "response" in made else made["message"]["content"]
    assert json.loads(text) == {"a": "b"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", ASKING)
def test_a_client_that_leaves_ends_its_request(path: str, streamed: bool, server: LiveServer) -> None:
    body = ASKING[path] | ENDLESS[path] | {"stream": streamed}
    before = server.worker.snapshot().requests_aborted
    with server.send("POST", path, json.dumps(body).encode()):
        wait_for(lambda: server.worker.snapshot().running > 0)
    server.wait_until_idle()
    assert server.worker.snapshot().requests_aborted == before + 1


def test_kobolds_own_endpoint_stays_reachable(server: LiveServer) -> None:
    asked = {"prompt": "hello", "max_length": 2, "num_predict": 1}
    for path in ("/api/v1/generate", "/x/api/v1/generate", "/api/latest/generate"):
        assert server.post(path, asked).json.keys() == {"results"}
    assert "response" in server.post("/x/api/generate", {"prompt": "x", "stream": False, "raw": True}).json


def with_schema(path: str, number: str, body: dict[str, Any]) -> bytes:
    """The body, in which "SCHEMA" stands for a schema with that number."""
    schema = f'{{"type": "object", "properties": {{"a": {{"minimum": {number}}}}}}}'
    return json.dumps(ASKING[path] | body).replace('"SCHEMA"', schema).encode()


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
@pytest.mark.parametrize("path", ASKING)
def test_a_format_with_numbers_that_are_none_is_refused(path: str, number: str, server: LiveServer) -> None:
    form = {"type": "json_schema", "name": "x", "schema": "SCHEMA"}
    body = {"format": "SCHEMA", "output_config": {"format": form}, "text": {"format": form}}
    assert 400 <= server.post(path, with_schema(path, number, body)).status < 500


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/api/chat"])
def test_a_tool_with_numbers_that_are_none_can_be_used(path: str, number: str, server: LiveServer) -> None:
    function = {"name": "f", "parameters": "SCHEMA", "input_schema": "SCHEMA"}
    tool = {
        "/v1/messages": function,
        "/v1/responses": {"type": "function", **function},
        "/api/chat": {"function": function},
    }[path]
    assert server.post(path, with_schema(path, number, {"tools": [tool]})).status == 200
