"""OpenAI's own client against a live server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from engine.types import FinishReason, JsonGrammar, TaggedGrammar
from tests.server.dialects.scripted import CACHED, ScriptedWorker
from tests.server.live import LiveServer

TOOLS: Any = [
    {
        "type": "function",
        "name": "weather",
        "description": "The weather at a place.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    }
]
NAMELESS: Any = [{"type": "function"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'


class City(pydantic.BaseModel):
    """What the structured replies are."""

    name: str
    people: int


@pytest.fixture
def worker(scripted: tuple[LiveServer, ScriptedWorker]) -> ScriptedWorker:
    return scripted[1]


@pytest.fixture
def client(scripted: tuple[LiveServer, ScriptedWorker]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{scripted[0].url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_response(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say("Good morning.")
    made = client.responses.create(
        model="any",
        input="Hello?",
        instructions="Be polite.",
        max_output_tokens=50,
        temperature=0,
        metadata={"a": "b"},
    )
    assert made.output_text == "Good morning."
    assert (made.status, made.model, made.metadata) == ("completed", "koboldcpp/scripted", {"a": "b"})
    assert made.usage is not None
    assert made.usage.output_tokens == len("Good morning.")
    assert made.usage.input_tokens == len(worker.prompt)
    assert made.usage.input_tokens_details.cached_tokens == CACHED
    assert "system\nBe polite.<|im_end|>\n<|im_start|>user\nHello?" in worker.prompt
    assert (worker.asked[-1].max_tokens, worker.asked[-1].sampling.temperature) == (50, 0.0)


def test_a_streamed_response(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say("Good morning to you.", pausing=True)
    events = []
    for event in client.responses.create(model="", input="Hello?", stream=True):
        events.append(event)
        if event.type == "response.output_text.delta":
            worker.go_on()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert texts[0] == "Good mo"  # which came while the rest was still to be made
    assert "".join(texts) == "Good morning to you."
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Good morning to you."
    with client.responses.stream(model="", input="Hello?") as stream:
        assert stream.get_final_response().output_text == "Good morning to you."


def test_a_response_that_is_cut_short(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say("Good mor", FinishReason.LENGTH)
    made = client.responses.create(model="", input="Hello?", max_output_tokens=8)
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    events = list(client.responses.create(model="", input="Hello?", stream=True))
    assert events[-1].type == "response.incomplete"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_round_of_tools(client: openai.OpenAI, worker: ScriptedWorker, streamed: bool) -> None:
    worker.say(CALL)
    asked: Any = {"model": "", "tools": TOOLS, "parallel_tool_calls": False}
    if streamed:
        with client.responses.stream(input="Hello?", **asked) as stream:
            kinds = {event.type for event in stream}
            made: Any = stream.get_final_response()
        assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
    else:
        made = client.responses.create(input="Hello?", **asked)
    call = made.output[0]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Zürich"})
    grammar = worker.asked[-1].grammar
    assert isinstance(grammar, TaggedGrammar)
    assert (grammar.required, grammar.several) == (False, False)

    worker.say("It rains.")
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain, 12 °C"}
    by_items = client.responses.create(
        input=[{"role": "user", "content": "Hello?"}, *made.output, result], **asked
    )
    prompt = worker.prompt
    by_id = client.responses.create(input=[result], previous_response_id=made.id, **asked)
    assert by_items.output_text == by_id.output_text == "It rains."
    assert worker.prompt == prompt
    assert "Rain, 12 °C" in prompt
    assert '"city": "Z' in prompt


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking(client: openai.OpenAI, worker: ScriptedWorker, streamed: bool) -> None:
    worker.say("<think>\nA greeting.\n</think>\n\nHello!")
    asked: Any = {"model": "", "input": "Hello?", "reasoning": {"effort": "low"}, "max_output_tokens": 100}
    if streamed:
        with client.responses.stream(**asked) as stream:
            events = list(stream)
            made: Any = stream.get_final_response()
        thoughts = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
        assert "".join(thoughts) == "A greeting."
    else:
        made = client.responses.create(**asked)
    assert [item.type for item in made.output] == ["reasoning", "message"]
    assert made.output[0].content[0].text == "A greeting."
    assert made.output_text == "Hello!"
    assert made.usage.output_tokens_details.reasoning_tokens == len("A greeting.")
    budget = worker.asked[-1].thinking
    assert budget is not None
    assert budget.tokens == 25
    client.responses.create(model="", input="And?", previous_response_id=made.id)
    assert "A greeting." not in worker.prompt


@pytest.mark.parametrize("streamed", [False, True])
def test_structured_output(client: openai.OpenAI, worker: ScriptedWorker, streamed: bool) -> None:
    worker.say('{"name": "Bern", "people": 137000}')
    if streamed:
        with client.responses.stream(model="", input="Where?", text_format=City) as stream:
            made = stream.get_final_response()
    else:
        made = client.responses.parse(model="", input="Where?", text_format=City)
    assert made.output_parsed == City(name="Bern", people=137000)
    grammar = worker.asked[-1].grammar
    assert isinstance(grammar, JsonGrammar)
    assert json.loads(grammar.schema)["required"] == ["name", "people"]


def test_logprobs(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say("Hi.")
    made: Any = client.responses.create(
        model="", input="Hello?", include=["message.output_text.logprobs"], top_logprobs=2
    )
    entries = made.output[0].content[0].logprobs
    assert [entry.token for entry in entries] == ["H", "i", "."]
    assert worker.asked[-1].logprobs == 2


def test_a_conversation_by_id(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say("I am Ada.")
    first = client.responses.create(model="", input="Who are you?", instructions="Be brief.")
    list(client.responses.create(model="", input="Sure?", previous_response_id=first.id, stream=True))
    assert "user\nWho are you?<|im_end|>\n<|im_start|>assistant\nI am Ada.<|im_end|>" in worker.prompt
    assert "Be brief." not in worker.prompt, "instructions count for one response"
    assert client.responses.retrieve(first.id).output_text == "I am Ada."


def test_what_is_not_stored_is_not_found(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say("Hi.")
    made = client.responses.create(model="", input="Hello?", store=False)
    for unknown in (made.id, "resp_0"):
        with pytest.raises(openai.NotFoundError, match="not found") as caught:
            client.responses.create(model="", input="And?", previous_response_id=unknown)
        assert caught.value.code == "previous_response_not_found"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(unknown)


def test_errors_are_the_clients_own(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    image: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]
    with pytest.raises(openai.BadRequestError, match="no model that sees"):
        client.responses.create(model="", input=image)
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.create(model="", input="x", background=True)
    with pytest.raises(openai.BadRequestError, match=r"tools\.0\.name"):
        client.responses.create(model="", input="x", tools=NAMELESS)
    worker.say("Hi", FinishReason.ERROR, "out of memory")
    with pytest.raises(openai.InternalServerError, match="out of memory"):
        client.responses.create(model="", input="x")
    last = list(client.responses.create(model="", input="x", stream=True))[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "out of memory"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="", input="x", previous_response_id=last.response.id)


def test_the_key_is_asked_for(locked_scripted: LiveServer) -> None:
    for method, path in (("POST", "/v1/responses"), ("GET", "/v1/responses/resp_0")):
        assert locked_scripted.ask(method, path, {"input": "x"}).status == 401
