"""Whatever a client sends as a tool's parameters, it can be called, in every dialect that has tools."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.live import LiveServer

HELLO: Any = [{"role": "user", "content": "hello"}]
ODD: list[Any] = [
    None,
    True,
    "text",
    [1],
    {"properties": None},
    {"type": "string", "minimum": 10**400},
    {"type": "object", "properties": {"a": {"propertyNames": {}, "not": {}, "pattern": "(?=x)"}}},
    {"anyOf": [{"$ref": "https://example.org/schema"}], "required": 5},
]


def asking(path: str, parameters: Any) -> dict[str, Any]:
    odd = {"name": "odd", "parameters": parameters}
    if path == "/v1/messages":
        return {"messages": HELLO, "max_tokens": 1, "tools": [{"name": "odd", "input_schema": parameters}]}
    if path == "/v1/responses":
        return {"input": "hello", "max_output_tokens": 1, "tools": [{"type": "function", **odd}]}
    tools = [{"type": "function", "function": odd}]
    if path == "/api/chat":
        return {"messages": HELLO, "tools": tools, "stream": False, "options": {"num_predict": 1}}
    return {"messages": HELLO, "tools": tools, "max_tokens": 1}


PATHS = ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"]


@pytest.mark.parametrize("path", PATHS)
def test_odd_parameters_are_no_error(path: str, server: LiveServer) -> None:
    for parameters in ODD:
        answer = server.post(path, asking(path, parameters))
        assert answer.status == 200, (parameters, answer.body)


@pytest.mark.parametrize("path", PATHS)
def test_a_number_that_is_too_large_is_no_error(path: str, server: LiveServer) -> None:
    body = json.dumps(asking(path, {"properties": {"a": {"maximum": "HUGE"}}})).replace('"HUGE"', "-1e400")
    answer = server.post(path, body.encode())
    assert answer.status == 200, answer.body


@settings(max_examples=15, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "properties", "items", "$ref", "not", "x"]), inner)
        ),
        max_leaves=10,
    )
)
def test_any_json_is_no_error(open_server: LiveServer, parameters: Any) -> None:
    body = asking("/v1/chat/completions", parameters) | {"tool_choice": "required"}
    answer = open_server.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.body


def test_a_call_that_must_come_keeps_to_the_rest(server: LiveServer) -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "array", "items": {"enum": [7]}, "minItems": 2, "maxItems": 2, "contains": {}}
        },
        "required": ["n"],
    }
    body = asking("/v1/chat/completions", schema) | {"tool_choice": "required", "max_tokens": 200}
    [call] = server.post("/v1/chat/completions", body).json["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"n": [7, 7]}


@pytest.mark.parametrize("keyword", ["not", "contains", "propertyNames", "uniqueItems"])
def test_a_response_format_stays_strict(keyword: str, server: LiveServer) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", keyword: {}}}}
    answer = server.post("/v1/chat/completions", {"messages": HELLO, "response_format": form})
    assert answer.status == 400
    assert keyword in answer.body.decode()
