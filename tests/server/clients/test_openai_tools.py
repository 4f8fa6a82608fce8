"""The official client of OpenAI and tools: with a model that can speak, and with one that calls at will."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer


class Strict(BaseModel):
    """An object without members beyond those named."""

    model_config = ConfigDict(extra="forbid")


class Weather(Strict):
    """What the tool `weather` takes."""

    city: Annotated[str, Field(max_length=30)]
    unit: Literal["celsius", "fahrenheit"]
    days: int


class Clock(Strict):
    """What the tool `clock` takes."""

    zone: Literal["CET", "UTC"]


ARGUMENTS: dict[str, type[Strict]] = {"weather": Weather, "clock": Clock}
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": name, "description": f"The {name}.", "parameters": model.model_json_schema()},
    }
    for name, model in ARGUMENTS.items()
]
for tool in TOOLS:
    # Most clients do not say it, and mean it all the same.
    del tool["function"]["parameters"]["additionalProperties"]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(demo_server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ("required", None),
        ({"type": "function", "function": {"name": "clock"}}, "clock"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
    ],
)
def test_tools_that_must_be_called(client: openai.OpenAI, choice: Any, named: str | None) -> None:
    settings: Any = {"messages": WEATHER, "tools": TOOLS, "tool_choice": choice, "max_tokens": 80}
    settings |= {"temperature": 0, "parallel_tool_calls": False, "model": ""}
    reply = client.chat.completions.create(**settings).choices[0]
    assert reply.finish_reason == "tool_calls"
    assert reply.message.content is None
    (call,) = reply.message.tool_calls or []
    assert named in (None, call.function.name)
    ARGUMENTS[call.function.name].model_validate_json(call.function.arguments)

    chunks = list(client.chat.completions.create(**settings, stream=True))
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
    assert [(part.id is not None, part.index) for part in parts] == [
        (place == 0, 0) for place in range(len(parts))
    ], "the id comes once, with the name"
    assert parts[0].function.name == call.function.name
    assert "".join(part.function.arguments or "" for part in parts) == call.function.arguments
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "tool_calls"]


def test_tools_that_may_be_called(client: openai.OpenAI) -> None:
    """Whether this model calls is its business; both ends are OpenAI's."""
    reply = client.chat.completions.create(
        model="", messages=WEATHER, tools=TOOLS, tool_choice="auto", max_tokens=40, temperature=0
    ).choices[0]
    for call in reply.message.tool_calls or []:
        assert call.type == "function"
        assert reply.finish_reason in ("tool_calls", "length")
        if reply.finish_reason == "tool_calls":
            ARGUMENTS[call.function.name].model_validate_json(call.function.arguments)
    assert bool(reply.message.content) or bool(reply.message.tool_calls)
    none = client.chat.completions.create(
        model="", messages=WEATHER, tools=TOOLS, tool_choice="none", max_tokens=20, temperature=0
    )
    plain = client.chat.completions.create(model="", messages=WEATHER, max_tokens=20, temperature=0)
    assert none.choices[0].message == plain.choices[0].message


def test_the_result_of_a_tool(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "CET"}'}}
    messages: Any = [
        *WEATHER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny in Paris."},
    ]
    reply = client.chat.completions.create(
        model="", messages=messages, tools=TOOLS, max_tokens=40, temperature=0
    )
    assert reply.choices[0].message.content
    assert reply.usage is not None
    assert reply.usage.prompt_tokens > 100, "the model was told of the tools"


@pytest.fixture
def scripted_client(scripted: tuple[LiveServer, ScriptedWorker]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{scripted[0].url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_two_calls_in_a_stream(
    scripted_client: openai.OpenAI, scripted: tuple[LiveServer, ScriptedWorker]
) -> None:
    """The client's own collector puts the pieces together."""
    arguments = [{"city": "Zürich", "unit": "celsius", "days": 2}, {"zone": "CET"}]
    calls = [{"name": name, "arguments": one} for name, one in zip(ARGUMENTS, arguments, strict=True)]
    tags = "".join(f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>\n" for call in calls)
    scripted[1].say("I look. " + tags)
    tools: Any = [openai.pydantic_function_tool(model, name=name) for name, model in ARGUMENTS.items()]
    with scripted_client.chat.completions.stream(model="", messages=WEATHER, tools=tools) as stream:
        kinds = [event.type for event in stream]
        choice = stream.get_final_completion().choices[0]
    assert (choice.message.content or "").strip() == "I look."
    assert choice.finish_reason == "tool_calls"
    made = choice.message.tool_calls or []
    assert [(call.function.name, json.loads(call.function.arguments)) for call in made] == [
        (call["name"], call["arguments"]) for call in calls
    ]
    assert [type(call.function.parsed_arguments) for call in made] == [Weather, Clock]
    assert kinds.count("tool_calls.function.arguments.done") == 2
    whole = scripted_client.chat.completions.parse(model="", messages=WEATHER, tools=tools).choices[0]
    assert [call.function.parsed_arguments for call in whole.message.tool_calls or []] == [
        call.function.parsed_arguments for call in made
    ]


def test_a_tool_that_is_not_called(
    scripted_client: openai.OpenAI, scripted: tuple[LiveServer, ScriptedWorker]
) -> None:
    scripted[1].say("It is <b>sunny</b> in <tool_box>.")
    reply = scripted_client.chat.completions.create(model="", messages=WEATHER, tools=TOOLS).choices[0]
    assert (reply.message.content, reply.message.tool_calls) == ("It is <b>sunny</b> in <tool_box>.", [])
    assert reply.finish_reason == "stop"
    chunks = scripted_client.chat.completions.create(model="", messages=WEATHER, tools=TOOLS, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == reply.message.content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "'x'"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}}, "exclude"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "bad tool name 'a b'"),
        ({"tools": [{"type": "function", "function": {"parameters": {}}}]}, r"tools\.0\.name"),
    ],
)
def test_what_is_refused(scripted_client: openai.OpenAI, changes: Any, message: str) -> None:
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError), match=message):
        scripted_client.chat.completions.create(model="", messages=WEATHER, **changes)
