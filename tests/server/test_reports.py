"""What users of servers like this one have reported, as small cases against the demo model."""

import json
import re
from typing import Any

import pytest

from tests.server.live import LiveServer

CHAT = "/v1/chat/completions"


def tool(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def arguments(server: LiveServer, tools: list[Any], choice: Any) -> dict[str, Any]:
    """Those of the call that the demo model makes because it must."""
    messages = [{"role": "user", "content": "Do it."}]
    body = {"messages": messages, "tools": tools, "tool_choice": choice, "max_tokens": 100, "seed": 1}
    answer = server.post(CHAT, body)
    assert answer.status == 200, answer.body
    [call] = answer.json["choices"][0]["message"]["tool_calls"]
    read: dict[str, Any] = json.loads(call["function"]["arguments"])
    return read


def test_a_pattern_with_escaped_slashes_binds(demo_server: LiveServer) -> None:
    pattern = r"^(ftp:\/\/)?files\.test\/[a-z]{2,5}$"
    links = {"type": "array", "items": {"type": "string", "pattern": pattern}, "minItems": 1, "maxItems": 1}
    found = arguments(demo_server, [tool("open", {"links": links})], "required")
    assert re.fullmatch(r"(ftp://)?files\.test/[a-z]{2,5}", found["links"][0])


def test_alternatives_in_items_bind_beside_many_tools(demo_server: LiveServer) -> None:
    pattern = r"^(\d{2}|key:[a-f0-9_-]{1,3})$"
    keys = {"type": "array", "items": {"type": "string", "pattern": pattern}, "minItems": 1, "maxItems": 2}
    others = [tool(f"other_{number}", {"text": {"type": "string"}}) for number in range(40)]
    choice = {"type": "function", "function": {"name": "remove"}}
    found = arguments(demo_server, [*others, tool("remove", {"keys": keys})], choice)["keys"]
    assert 1 <= len(found) <= 2
    assert all(re.fullmatch(r"\d{2}|key:[a-f0-9_-]{1,3}", key) for key in found)


@pytest.mark.parametrize(
    ("prompt", "stop"),
    [
        ("Waiter: Here you are.\nWoman: Thank you,", ["\n", "Waiter:"]),
        ("Two, three, four, five,", [" seven, ei", "odd"]),
        ("The largest city of Japan is", ["Tokyo.", "."]),
    ],
)
def test_a_stream_with_stops_is_the_whole_reply(
    demo_server: LiveServer, prompt: str, stop: list[str]
) -> None:
    body = {"prompt": prompt, "max_tokens": 20, "temperature": 0, "stop": stop}
    whole = demo_server.post("/v1/completions", body).json["choices"][0]["text"]
    frames = demo_server.post("/v1/completions", body | {"stream": True}).body.decode().split("\n\n")
    data = [frame.removeprefix("data: ") for frame in frames if frame.startswith("data: {")]
    assert "".join(one["text"] for event in data for one in json.loads(event)["choices"]) == whole
    assert whole
    assert not any(text in whole for text in stop)


@pytest.mark.parametrize(
    "field", ["logit_bias", "text_bias", "custom_token_bans", "banned_tokens", "banned_strings"]
)
def test_every_way_to_ban_a_word_bans_it(demo_server: LiveServer, field: str) -> None:
    prompt = "red blue green grey. red blue green grey. red blue"
    body = {"prompt": prompt, "max_length": 4, "temperature": 0, "rep_pen": 1}
    [token] = demo_server.worker.encode(" green", add_bos=False)
    ways: dict[str, dict[str, Any]] = {
        "logit_bias": {"logit_bias": {str(token): -100}},
        "text_bias": {"logit_bias": {str(token): "-100"}},
        "custom_token_bans": {"custom_token_bans": str(token)},
        "banned_tokens": {"banned_tokens": ["Green"]},
        "banned_strings": {"banned_strings": ["green"]},
    }

    def text(**more: Any) -> str:
        return str(demo_server.post("/api/v1/generate", body | more).json["results"][0]["text"])

    assert text().startswith(" green")
    assert "green" not in text(**ways[field]).lower()


@pytest.mark.parametrize("many", [False, True])
def test_a_schema_beside_the_messages_binds(demo_server: LiveServer, many: bool) -> None:
    name, kind = (
        {"type": "string", "minLength": 1, "maxLength": 12},
        {"type": "string", "enum": ["cat", "dog"]},
    )
    one = {"type": "object", "additionalProperties": False, "required": ["name", "kind"]}
    one |= {"properties": {"name": name, "kind": kind}}
    schema = {"type": "array", "minItems": 2, "maxItems": 2, "items": one} if many else one
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    messages = [{"role": "user", "content": "Name a pet."}]
    answer = demo_server.post(CHAT, {"messages": messages, "json_schema": schema, "max_tokens": 120})
    made = json.loads(answer.json["choices"][0]["message"]["content"])
    pets = made if many else [made]
    assert len(pets) == (2 if many else 1)
    assert all(pet["kind"] in ("cat", "dog") and 1 <= len(pet["name"]) <= 12 for pet in pets)
