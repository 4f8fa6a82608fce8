"""Ollama's own client against a live server."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import ollama
import pytest

from engine.types import FinishReason, JsonGrammar, TokenPrompt
from tests.server.dialects.scripted import DECODE_SECONDS, PROMPT_SECONDS, ScriptedWorker
from tests.server.live import LiveServer

HELLO: Any = [{"role": "user", "content": "Hello?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'


@pytest.fixture
def worker(scripted: tuple[LiveServer, ScriptedWorker]) -> ScriptedWorker:
    return scripted[1]


@pytest.fixture
def client(scripted: tuple[LiveServer, ScriptedWorker]) -> Iterator[ollama.Client]:
    client = ollama.Client(host=scripted[0].url)
    yield client
    client._client.close()


def test_a_chat(client: ollama.Client, worker: ScriptedWorker) -> None:
    worker.say("Good morning.")
    made = client.chat(model="any", messages=HELLO, options={"num_predict": 50, "temperature": 0})
    assert (made.message.role, made.message.content) == ("assistant", "Good morning.")
    assert (made.model, made.done, made.done_reason) == ("scripted", True, "stop")
    assert (made.eval_count, made.prompt_eval_count) == (len("Good morning."), len(worker.prompt))
    assert (made.eval_duration, made.prompt_eval_duration) == (DECODE_SECONDS * 1e9, PROMPT_SECONDS * 1e9)
    assert made.total_duration is not None
    assert made.load_duration is not None
    assert 0 < made.load_duration < made.total_duration < 20e9
    assert (worker.asked[-1].max_tokens, worker.asked[-1].sampling.temperature) == (50, 0.0)


def test_a_streamed_chat(client: ollama.Client, worker: ScriptedWorker) -> None:
    worker.say("Good morning to you.", FinishReason.LENGTH)
    parts = list(client.chat(model="any", messages=HELLO, stream=True))
    assert len(parts) > 2
    assert "".join(part.message.content or "" for part in parts) == "Good morning to you."
    assert [part.done for part in parts[-2:]] == [False, True]
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("length", 20)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_round_of_tools(client: ollama.Client, worker: ScriptedWorker, streamed: bool) -> None:
    worker.say("I look." + CALL)
    if streamed:
        parts = list(client.chat(model="any", messages=HELLO, tools=TOOLS, stream=True))
        messages = [part.message for part in parts]
        called = [message for message in messages if message.tool_calls]
        assert len(called) == 1
        said = called[0]
    else:
        said = client.chat(model="any", messages=HELLO, tools=TOOLS).message
    assert said.tool_calls is not None
    function = said.tool_calls[0].function
    assert (function.name, function.arguments) == ("weather", {"city": "Zürich"})

    worker.say("It rains.")
    result: Any = {"role": "tool", "content": "Rain, 12 °C", "tool_name": "weather"}
    again = client.chat(model="any", messages=[*HELLO, said, result], tools=TOOLS)
    assert again.message.content == "It rains."
    assert "Rain, 12 °C" in worker.prompt
    assert '"city": "Z' in worker.prompt


@pytest.mark.parametrize("think", [None, False, True, "low"])
def test_a_format_binds_a_model_that_thinks(
    client: ollama.Client, worker: ScriptedWorker, think: Any
) -> None:
    worker.say('{"a": 1}')
    schema: Any = {"type": "object", "properties": {"a": {"type": "integer"}}}
    message = client.chat(model="any", messages=HELLO, think=think, format=schema).message
    assert (message.thinking, message.content) == (None, '{"a": 1}')
    asked = worker.asked[-1]
    assert isinstance(asked.grammar, JsonGrammar)
    assert json.loads(asked.grammar.schema) == schema
    assert asked.thinking is None
    assert worker.prompt.endswith("<think>\n\n</think>\n\n"), "the reply begins with the format"


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking(client: ollama.Client, worker: ScriptedWorker, streamed: bool) -> None:
    worker.say("<think>\nA greeting.\n</think>\n\nHello!")
    if streamed:
        parts = [part.message for part in client.chat(model="any", messages=HELLO, think=True, stream=True)]
        thoughts = "".join(part.thinking or "" for part in parts)
        text = "".join(part.content or "" for part in parts)
    else:
        message = client.chat(model="any", messages=HELLO, think="low").message
        thoughts, text = message.thinking or "", message.content or ""
        budget = worker.asked[-1].thinking
        assert budget is not None
        assert budget.tokens == 100
    assert (thoughts, text) == ("A greeting.", "Hello!")
    silent = client.chat(model="any", messages=HELLO, think=False).message
    assert (silent.thinking, silent.content) == (None, "Hello!")
    assert "<think>\n\n</think>" in worker.prompt


def test_formats(client: ollama.Client, worker: ScriptedWorker) -> None:
    worker.say('{"city": "Bern"}')
    schema = TOOLS[0]["function"]["parameters"]
    made = client.chat(model="any", messages=HELLO, format=schema)
    assert json.loads(made.message.content or "") == {"city": "Bern"}
    grammar = worker.asked[-1].grammar
    assert isinstance(grammar, JsonGrammar)
    assert json.loads(grammar.schema) == schema
    client.generate(model="any", prompt="Where?", format="json", raw=True)
    assert worker.asked[-1].grammar == JsonGrammar('{"type": "object"}')


def test_logprobs(client: ollama.Client, worker: ScriptedWorker) -> None:
    worker.say("Hi.")
    made = client.generate(model="any", prompt="Hello?", raw=True, logprobs=True, top_logprobs=2)
    assert [entry.token for entry in made.logprobs or ()] == ["H", "i", "."]
    assert worker.asked[-1].logprobs == 2


def test_a_generation(client: ollama.Client, worker: ScriptedWorker) -> None:
    worker.say("I am Ada.")
    made = client.generate(model="any", prompt="Who are you?", system="Be brief.")
    first = worker.prompt
    assert made.response == "I am Ada."
    assert "system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?" in first
    assert bytes(made.context or ()).decode() == first + "I am Ada."
    parts = list(client.generate(model="any", prompt="Sure?", context=made.context, stream=True))
    assert "".join(part.response or "" for part in parts) == "I am Ada."
    prompt = worker.asked[-1].prompt
    assert isinstance(prompt, TokenPrompt)
    assert worker.prompt.startswith(first + "I am Ada.<|im_start|>user\nSure?")
    assert [part.context for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert bytes(parts[-1].context or ()).decode() == worker.prompt + "I am Ada."


def test_a_raw_generation(client: ollama.Client, worker: ScriptedWorker) -> None:
    worker.say("<think>x", FinishReason.STOP)
    made = client.generate(model="any", prompt="Once upon", raw=True, options={"stop": [" time"]})
    assert (made.response, made.thinking, made.context) == ("<think>x", None, None)
    assert worker.prompt == "Once upon"
    assert worker.asked[-1].stop == (" time",)


def test_nothing_is_made_of_nothing(client: ollama.Client, worker: ScriptedWorker) -> None:
    before = len(worker.asked)
    assert client.generate(model="any").done_reason == "load"
    assert client.chat(model="any", messages=[]).done_reason == "load"
    assert len(worker.asked) == before


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (0, "unload"),
        (0.0, "unload"),
        ("0", "unload"),
        ("0s", "unload"),
        ("0h0m0.0s", "unload"),
        ("-0ms", "unload"),
        (-1, "load"),
        ("5m", "load"),
        ("0m1s", "load"),
        ("", "load"),
        (False, "load"),
        ([], "load"),
        (None, "load"),
    ],
)
def test_nothing_to_answer_and_not_kept_is_an_unloading(
    scripted: tuple[LiveServer, ScriptedWorker], kept: Any, reason: str
) -> None:
    for path, empty in (("/api/generate", {"prompt": ""}), ("/api/chat", {"messages": []})):
        answer = scripted[0].post(path, {"model": "any", "keep_alive": kept} | empty)
        assert (answer.json["done"], answer.json["done_reason"]) == (True, reason)


def test_a_prompt_is_answered_however_long_the_model_is_kept(
    client: ollama.Client,
) -> None:
    assert client.generate(model="any", prompt="hello", keep_alive=0).done_reason == "stop"


def test_the_model(client: ollama.Client) -> None:
    entry = client.list().models[0]
    assert (entry.model, entry.details and entry.details.family) == ("scripted", "qwen3")
    running = client.ps().models[0]
    assert (running.model, running.digest, running.context_length) == ("scripted", entry.digest, 4096)
    assert running.expires_at is not None
    shown = client.show("scripted")
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["qwen3.context_length"] == 4096


def test_the_framing_of_a_stream(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say("Hi.\u2028")
    answer = server.post("/anything/api/chat", {"messages": HELLO})
    assert answer.header("content-type") == "application/x-ndjson"
    lines = answer.body.decode("ascii").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert server.get("/api/version").json == {"version": "0.13.4", "nkat": version("nkat")}


def test_errors_are_the_clients_own(client: ollama.Client, worker: ScriptedWorker) -> None:
    with pytest.raises(ollama.ResponseError, match="no model that sees") as caught:
        client.chat(model="x", messages=[{"role": "user", "content": "?", "images": ["aGk="]}])
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="suffix") as caught:
        list(client.generate(model="x", prompt="?", suffix="!", stream=True))
    assert caught.value.status_code == 400
    worker.say("Hi", FinishReason.ERROR, "out of memory")
    with pytest.raises(ollama.ResponseError, match="out of memory") as caught:
        client.chat(model="x", messages=HELLO)
    assert caught.value.status_code == 500
    with pytest.raises(ollama.ResponseError, match="out of memory"):
        list(client.chat(model="x", messages=HELLO, stream=True))


def test_errors_before_a_stream_have_their_status(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, _ = scripted
    broken = server.post("/api/chat", b"{")
    assert (broken.status, broken.json["error"]) == (400, "Error parsing input.")
    assert broken.json["detail"]["msg"] == "Error parsing input."
    bad_ids = server.post("/api/generate", {"prompt": "x", "context": [-1]})
    assert (bad_ids.status, bad_ids.json["error"][:9]) == (400, "context.0")


def test_the_key_is_asked_for(locked_scripted: LiveServer) -> None:
    for path in ("/api/chat", "/api/generate", "/api/show"):
        refused = locked_scripted.post(path, {"prompt": "x"})
        assert (refused.status, type(refused.json["error"])) == (401, str)
    for path in ("/api/tags", "/api/ps", "/api/version"):
        assert locked_scripted.get(path).status == 200
