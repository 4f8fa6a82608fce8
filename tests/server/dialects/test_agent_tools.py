"""Tools of agents, with OpenAI's and Anthropic's own clients against a scripted model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from engine.tokenizer.chat_template import ChatTemplate
from tests.server.chat.templates import AGENT
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer

PATCH = '*** Begin Patch\n+ a "quoted" ü\\ line 😀\n*** End Patch\n'
CUSTOM: Any = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "text"},
}
READ: Any = {
    "type": "function",
    "name": "read",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
SPACE: Any = {"type": "namespace", "name": "files", "description": "All of files.", "tools": [READ]}


def calling(name: str, arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.fixture
def worker(scripted: tuple[LiveServer, ScriptedWorker], monkeypatch: pytest.MonkeyPatch) -> ScriptedWorker:
    monkeypatch.setattr(scripted[1], "template", ChatTemplate(AGENT))
    return scripted[1]


@pytest.fixture
def client(scripted: tuple[LiveServer, ScriptedWorker]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{scripted[0].url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_custom_call_comes_as_text(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say(calling("apply_patch", {"input": PATCH}))
    made = client.responses.create(model="", input="Edit it.", tools=[CUSTOM])
    [call] = made.output
    assert call.type == "custom_tool_call"
    assert (call.name, call.input, call.id) == ("apply_patch", PATCH, f"ctc_{made.id[5:]}00")
    assert call.call_id.startswith("call_")


def test_a_streamed_custom_call(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say(calling("apply_patch", {"input": PATCH}))
    events: list[Any] = list(client.responses.create(model="", input="Edit it.", tools=[CUSTOM], stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    delta = "custom_tool_call_input.delta"
    deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    assert len(deltas) > 2
    assert "".join(deltas) == PATCH
    assert [kind for kind in kinds if kind != delta] == [
        "created", "in_progress", "output_item.added", "custom_tool_call_input.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    added, done, ended = (
        next(event for event in events if event.type == f"response.{kind}")
        for kind in ("output_item.added", "custom_tool_call_input.done", "output_item.done")
    )
    assert added.item.type == ended.item.type == "custom_tool_call"
    assert (added.item.name, added.item.input) == ("apply_patch", "")
    assert (done.input, done.item_id) == (PATCH, added.item.id)
    assert ended.item.input == PATCH


def test_custom_calls_of_the_history(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say("Done.")
    history: Any = [
        {"role": "user", "content": "Edit it."},
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": PATCH},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "It is edited."},
    ]
    client.responses.create(model="", input=history, tools=[CUSTOM])
    written = worker.prompt.partition('"name": "apply_patch", "arguments": ')[2].partition("\n</tool_call>")[
        0
    ]
    assert json.loads(written[: written.rindex("}")]) == {"input": PATCH}
    assert "It is edited." in worker.prompt


def test_a_custom_call_that_goes_on_from_a_kept_response(
    client: openai.OpenAI, worker: ScriptedWorker
) -> None:
    worker.say(calling("apply_patch", {"input": PATCH}))
    first = client.responses.create(model="", input="Edit it.", tools=[CUSTOM])
    assert first.output[0].type == "custom_tool_call"
    result: Any = [
        {"type": "custom_tool_call_output", "call_id": first.output[0].call_id, "output": "It is edited."}
    ]
    worker.say("Done.")
    client.responses.create(model="", input=result, tools=[CUSTOM], previous_response_id=first.id)
    assert "*** Begin Patch" in worker.prompt
    assert worker.prompt.index("*** Begin Patch") < worker.prompt.index("It is edited.")


def test_tools_of_a_namespace(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say(calling("files__read", {}))
    made: Any = client.responses.create(model="", input="Read it.", tools=[SPACE]).to_dict()
    [call] = made["output"]
    assert (call["type"], call["name"], call["namespace"]) == ("function_call", "read", "files")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "It says a."}
    history: Any = [{"role": "user", "content": "Read it."}, call, result]
    client.responses.create(model="", input=history, tools=[SPACE])
    assert '<tool_call>\n{"name": "files__read", "arguments": {}}\n</tool_call>' in worker.prompt


def test_custom_tools_of_a_chat(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    tool: Any = {"type": "custom", "custom": {"name": "apply_patch", "description": "Edits files."}}
    asked: Any = {"model": "", "messages": [{"role": "user", "content": "Edit it."}], "tools": [tool]}
    worker.say(calling("apply_patch", {"input": PATCH}))
    [call] = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert call.type == "custom"
    assert (call.custom.name, call.custom.input) == ("apply_patch", PATCH)
    deltas: list[Any] = [
        delta.to_dict()
        for chunk in client.chat.completions.create(stream=True, **asked)
        for delta in chunk.choices[0].delta.tool_calls or ()
    ]
    assert deltas[0]["type"] == "custom"
    assert "".join(delta["custom"]["input"] for delta in deltas) == PATCH
    assert all("function" not in delta for delta in deltas)

    worker.say("Done.")
    result = {"role": "tool", "tool_call_id": call.id, "content": "It is edited."}
    said = {"role": "assistant", "content": None, "tool_calls": [call.to_dict()]}
    client.chat.completions.create(**asked | {"messages": [*asked["messages"], said, result]})
    assert '"arguments": {"input": "*** Begin Patch' in worker.prompt


THOUGHT = "I must look at the file."
LOOP: Any = [
    {"type": "function_call", "call_id": "c", "name": "read", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "It says a."},
]


@pytest.mark.parametrize(
    "item",
    [
        {"content": [{"type": "reasoning_text", "text": THOUGHT}], "summary": []},
        {"summary": [{"type": "summary_text", "text": THOUGHT}], "encrypted_content": "gAAAA"},
        {"summary": [{"type": "summary_text", "text": THOUGHT}], "encrypted_content": "nkat-thoughts:~"},
    ],
)
def test_reasoning_in_a_loop_of_calls_reaches_the_template(
    client: openai.OpenAI, worker: ScriptedWorker, item: Any
) -> None:
    history = [{"role": "user", "content": "Read it."}, {"type": "reasoning", "id": "rs_1"} | item, *LOOP]
    client.responses.create(model="", input=history, tools=[READ])
    assert f"<think>\n{THOUGHT}\n</think>\n\n<tool_call>" in worker.prompt


def test_sealed_thoughts_come_back(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    """As Codex sends them: without the content that it was shown."""
    worker.say(f"<think>\n{THOUGHT}\n</think>\n\n" + calling("read", {}))
    asked: Any = {
        "model": "",
        "input": [{"role": "user", "content": "Read it."}],
        "tools": [READ],
        "store": False,
    }
    made: Any = client.responses.create(include=["reasoning.encrypted_content"], **asked).to_dict()["output"]
    bare = [{key: value for key, value in item.items() if key not in ("content", "id")} for item in made]
    assert [item["type"] for item in bare] == ["reasoning", "function_call"]
    result = LOOP[1] | {"call_id": bare[1]["call_id"]}
    client.responses.create(**asked | {"input": [*asked["input"], *bare, result]})
    assert f"<think>\n{THOUGHT}\n</think>\n\n<tool_call>" in worker.prompt
    plain: Any = client.responses.create(**asked).to_dict()["output"]
    assert "encrypted_content" not in plain[0]


def test_a_kept_response_keeps_its_thoughts(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    worker.say(f"<think>\n{THOUGHT}\n</think>\n\n" + calling("read", {}))
    first: Any = client.responses.create(model="", input="Read it.", tools=[READ])
    result: Any = LOOP[1] | {"call_id": first.output[-1].call_id}
    client.responses.create(model="", input=[result], tools=[READ], previous_response_id=first.id)
    assert f"<think>\n{THOUGHT}\n</think>\n\n<tool_call>" in worker.prompt


def test_the_tokens_of_an_input(client: openai.OpenAI, worker: ScriptedWorker) -> None:
    asked: Any = {"model": "", "input": "Read it.", "instructions": "Be terse.", "tools": [READ]}
    counted = client.responses.input_tokens.count(**asked)
    assert counted.object == "response.input_tokens"
    made = client.responses.create(**asked)
    assert made.usage is not None
    assert counted.input_tokens == made.usage.input_tokens == len(worker.prompt)


def test_one_model_by_its_name(scripted: tuple[LiveServer, ScriptedWorker], client: openai.OpenAI) -> None:
    [entry] = client.models.list().data
    found = client.models.retrieve(entry.id)
    assert (found.id, found.object, found.created) == (entry.id, "model", entry.created)
    assert client.models.retrieve("scripted") == found
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'"):
        client.models.retrieve("gpt-5")
    with anthropic.Anthropic(base_url=scripted[0].url, api_key="none", max_retries=0) as other:
        [listed] = other.models.list()
        one = other.models.retrieve(listed.id)
    assert one == listed
    assert (one.type, one.display_name, one.id) == ("model", "koboldcpp/scripted", "koboldcpp/scripted")
