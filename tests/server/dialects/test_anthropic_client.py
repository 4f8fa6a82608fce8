"""Anthropic's own client against a live server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from engine.types import FinishReason, JsonGrammar, TaggedGrammar
from tests.server.conftest import KEY
from tests.server.dialects.scripted import CACHED, ScriptedWorker
from tests.server.live import LiveServer

HELLO: Any = [{"role": "user", "content": "Hello?"}]
TOOLS: Any = [
    {
        "name": "weather",
        "description": "The weather at a place.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'


@pytest.fixture
def worker(scripted: tuple[LiveServer, ScriptedWorker]) -> ScriptedWorker:
    return scripted[1]


@pytest.fixture
def client(scripted: tuple[LiveServer, ScriptedWorker]) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=scripted[0].url, api_key="none", max_retries=0) as client:
        yield client


def test_a_message(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    worker.say("Good morning.")
    made = client.messages.create(
        model="any",
        messages=HELLO,
        max_tokens=50,
        system="Be polite.",
        extra_body={"temperature": 0},
    )
    assert [block.to_dict() for block in made.content] == [{"type": "text", "text": "Good morning."}]
    assert (made.id[:4], made.role, made.model) == ("msg_", "assistant", "koboldcpp/scripted")
    assert (made.stop_reason, made.stop_sequence) == ("end_turn", None)
    assert made.usage.output_tokens == len("Good morning.")
    assert made.usage.cache_read_input_tokens == CACHED
    assert made.usage.input_tokens == len(worker.prompt) - CACHED
    assert "system\nBe polite.<|im_end|>\n<|im_start|>user\nHello?" in worker.prompt
    assert (worker.asked[-1].max_tokens, worker.asked[-1].sampling.temperature) == (50, 0.0)


def test_a_streamed_message(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    worker.say("Good morning to you.", FinishReason.LENGTH, pausing=True)
    with client.messages.stream(model="any", messages=HELLO, max_tokens=50) as stream:
        texts = stream.text_stream
        assert next(texts) == "Good mo"  # while the rest is still to be made
        worker.go_on()
        assert "".join(texts) == "rning to you."
        made = stream.get_final_message()
    assert made.stop_reason == "max_tokens"
    assert made.usage.input_tokens == len(worker.prompt) - CACHED
    assert made.usage.output_tokens == 20


def test_stop_sequences(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    worker.say("One,", FinishReason.STOP)
    made = client.messages.create(model="", messages=HELLO, max_tokens=50, stop_sequences=[" two"])
    assert (made.stop_reason, made.stop_sequence) == ("stop_sequence", " two")
    assert worker.asked[-1].stop == (" two",)


def test_a_prefilled_reply_goes_on(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    worker.say(" lovely day.")
    client.messages.create(
        model="", messages=[*HELLO, {"role": "assistant", "content": "What a"}], max_tokens=50
    )
    assert worker.prompt.endswith("<|im_start|>assistant\nWhat a")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_round_of_tools(client: anthropic.Anthropic, worker: ScriptedWorker, streamed: bool) -> None:
    worker.say("I look." + CALL)
    asked: Any = {"model": "", "max_tokens": 99, "tools": TOOLS, "thinking": {"type": "disabled"}}
    if streamed:
        with client.messages.stream(messages=HELLO, **asked) as stream:
            partial = [event.partial_json for event in stream if event.type == "input_json"]
            made = stream.get_final_message()
        assert json.loads("".join(partial)) == {"city": "Zürich"}
    else:
        made = client.messages.create(messages=HELLO, **asked)
    text, use = made.content
    assert text.type == "text"
    assert text.text.strip() == "I look."
    assert use.type == "tool_use"
    assert (use.name, use.input) == ("weather", {"city": "Zürich"})
    assert made.stop_reason == "tool_use"
    grammar = worker.asked[-1].grammar
    assert isinstance(grammar, TaggedGrammar)
    assert not grammar.required

    worker.say("It rains.")
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "Rain, 12 °C"}
    turns: Any = [
        *HELLO,
        {"role": "assistant", "content": made.content},
        {"role": "user", "content": [result]},
    ]
    again = client.messages.create(messages=turns, **asked)
    assert again.content[0].type == "text"
    assert again.content[0].text == "It rains."
    assert "Rain, 12 °C" in worker.prompt
    assert '"city": "Z' in worker.prompt


def test_a_tool_must_be_called(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    worker.say(CALL)
    client.messages.create(
        model="",
        messages=HELLO,
        max_tokens=99,
        tools=TOOLS,
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    )
    grammar = worker.asked[-1].grammar
    assert isinstance(grammar, TaggedGrammar)
    assert (grammar.required, grammar.several) == (True, False)


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking(client: anthropic.Anthropic, worker: ScriptedWorker, streamed: bool) -> None:
    worker.say("<think>\nA greeting.\n</think>\n\nHello!")
    asked: Any = {"model": "", "messages": HELLO, "max_tokens": 5000}
    thinks: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    if streamed:
        with client.messages.stream(**asked, **thinks) as stream:
            thoughts = "".join(event.thinking for event in stream if event.type == "thinking")
            made = stream.get_final_message()
        assert thoughts == "A greeting."
    else:
        made = client.messages.create(**asked, **thinks)
    thought, text = made.content
    assert (thought.type, text.type) == ("thinking", "text")
    assert thought.to_dict() == {"type": "thinking", "thinking": "A greeting.", "signature": ""}
    budget = worker.asked[-1].thinking
    assert budget is not None
    assert budget.tokens == 1024

    silent = client.messages.create(**asked)
    assert [block.type for block in silent.content] == ["text"]
    assert "<think>\n\n</think>" in worker.prompt


def test_structured_output(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    worker.say('{"city": "Bern"}')
    schema = TOOLS[0]["input_schema"]
    made = client.messages.create(
        model="",
        messages=HELLO,
        max_tokens=50,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert made.content[0].to_dict()["text"] == '{"city": "Bern"}'
    grammar = worker.asked[-1].grammar
    assert isinstance(grammar, JsonGrammar)
    assert json.loads(grammar.schema) == schema


def test_counting_tokens(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    worker.say("Hi.")
    told: Any = {"messages": HELLO, "system": "Be polite.", "tools": TOOLS}
    counted = client.messages.count_tokens(model="", **told).input_tokens
    made = client.messages.create(model="", max_tokens=5, **told)
    assert counted == made.usage.input_tokens + CACHED
    assert client.messages.count_tokens(model="", messages=HELLO).input_tokens < counted


def test_the_framing_of_a_stream(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say("Hi.")
    answer = server.post("/v1/messages?beta=true", {"messages": HELLO, "max_tokens": 9, "stream": True})
    assert answer.header("content-type") == "text/event-stream"
    events = answer.body.decode("ascii").split("\n\n")
    assert events.pop() == ""
    names, contents = [], []
    for event in events:
        name, data = event.split("\n")
        names.append(name.removeprefix("event: "))
        contents.append(json.loads(data.removeprefix("data: ")))
    assert [content["type"] for content in contents] == names
    assert contents[0]["message"]["usage"]["input_tokens"] == len(worker.prompt)
    assert names[:2] == ["message_start", "ping"]
    assert names[-2:] == ["message_delta", "message_stop"]


def test_errors_are_the_clients_own(client: anthropic.Anthropic, worker: ScriptedWorker) -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    with pytest.raises(anthropic.BadRequestError, match="no model that sees") as caught:
        client.messages.create(model="", messages=[{"role": "user", "content": [image]}], max_tokens=5)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["detail"]["msg"] == body["error"]["message"]
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.create(model="", messages=[], max_tokens=5)
    with pytest.raises(anthropic.BadRequestError, match="no tools"):
        client.messages.create(model="", messages=HELLO, max_tokens=5, tool_choice={"type": "any"})
    worker.say("Hi", FinishReason.ERROR, "out of memory")
    with pytest.raises(anthropic.InternalServerError, match="out of memory"):
        client.messages.create(model="", messages=HELLO, max_tokens=5)
    with (
        pytest.raises(anthropic.APIStatusError, match="out of memory"),
        client.messages.stream(model="", messages=HELLO, max_tokens=5) as stream,
    ):
        stream.until_done()


def test_errors_before_a_stream_have_their_status(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    broken = server.post("/v1/messages", b"{")
    assert (broken.status, broken.json["error"]["type"]) == (400, "invalid_request_error")
    worker.say("x" * 500)
    body = {"messages": HELLO, "max_tokens": 9, "stream": True}
    busy = [server.send("POST", "/v1/messages", json.dumps(body).encode()) for _ in range(14)]
    try:
        for connection in busy:
            connection.recv(1, 2)  # the head has come: its generation is open
        refused = server.post("/v1/messages", body)
        assert (refused.status, refused.json["error"]["type"]) == (503, "overloaded_error")
    finally:
        for connection in busy:
            connection.close()


def test_the_key_comes_in_either_header(locked_scripted: LiveServer) -> None:
    body = {"messages": HELLO, "max_tokens": 9}
    key = KEY.encode().decode("latin-1")
    for header in ({"x-api-key": key}, {"Authorization": f"Bearer {key}"}):
        assert locked_scripted.post("/v1/messages", body, **header).status == 200
        assert locked_scripted.post("/v1/messages/count_tokens", body, **header).status == 200
    with (
        anthropic.Anthropic(base_url=locked_scripted.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError, match="key"),
    ):
        client.messages.create(model="", messages=HELLO, max_tokens=5)
