"""Requests that are far too much of something: each is answered soon, and nobody else waits for it."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from engine.errors import RequestError
from server.wire.gbnf import schema_to_gbnf
from server.wire.json_size import VALUES
from server.wire.lenient import WireModel
from tests.server.fuzz.exchange import Heard, exchange
from tests.server.fuzz.operations import Operation, operations
from tests.server.fuzz.rules import check
from tests.server.live import LiveServer

GENERATE, CHAT = "/api/v1/generate", "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
SOON = 5.0
"""Seconds in which the server answers somebody else. Much, for machines that are busy with other tests."""


def nested(depth: int) -> Any:
    """Lists within lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def nested_schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def tools(*parameters: Any) -> dict[str, Any]:
    """A chat with a tool for each schema, one of which must be called."""
    functions = [{"name": f"f{index}", "parameters": schema} for index, schema in enumerate(parameters)]
    called = [{"type": "function", "function": function} for function in functions]
    return {"messages": [USER], "tools": called, "tool_choice": "required"}


def schema(value: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"schema": value}}
    return {"messages": [USER], "response_format": form}


def grammar(text: str) -> dict[str, Any]:
    return {"prompt": "a", "grammar": text}


def doubling(rules: int) -> str:
    """A grammar for one text of 2 ** rules letters."""
    lines = [f"r{index} ::= r{index + 1} r{index + 1}" for index in range(rules)]
    return "\n".join(["root ::= r0", *lines, f'r{rules} ::= "a"'])


BIG = 2**70

EXTREMES: dict[str, tuple[str, Any, set[int]]] = {
    "ids beyond 64 bit, detokenize": ("/api/extra/detokenize", {"ids": [BIG]}, {400}),
    "ids beyond 64 bit, completions": ("/v1/completions", {"prompt": [BIG]}, {400}),
    "ids beyond 64 bit, embeddings": ("/v1/embeddings", {"input": [BIG]}, {400}),
    "ids beyond 64 bit, context": ("/api/generate", {"prompt": "a", "context": [BIG]}, {400}),
    "a name of 100,000 letters": ("/v1/responses", {"input": "a", "metadata": {"x" * 100_000: 1}}, {422}),
    "a million messages that are none": (CHAT, {"messages": [1] * 1_000_000}, {413}),
    "a million prompts that are none": ("/v1/completions", {"prompt": [{}] * 1_000_000}, {413}),
    "seeds beyond 64 bit": (GENERATE, {"prompt": "a", "sampler_seed": BIG}, {200}),
    "5000 messages, OpenAI": (CHAT, {"messages": [USER] * 5000}, {200}),
    "5000 messages, Anthropic": ("/v1/messages", {"messages": [USER] * 5000, "max_tokens": 2}, {200}),
    "5000 messages, Responses": ("/v1/responses", {"input": [USER] * 5000}, {200}),
    "5000 messages, Ollama": ("/api/chat", {"messages": [USER] * 5000}, {200}),
    "100,000 messages, OpenAI": (CHAT, {"messages": [USER] * 100_000}, {413}),
    "40,000 messages, OpenAI": (CHAT, {"messages": [USER] * 40_000}, {422}),
    "100,000 messages, Anthropic": ("/v1/messages", {"messages": [USER] * 100_000, "max_tokens": 2}, {400}),
    "100,000 messages, Responses": ("/v1/responses", {"input": [USER] * 100_000}, {413}),
    "40,000 messages, Responses": ("/v1/responses", {"input": [USER] * 40_000}, {422}),
    "100,000 messages, Ollama": ("/api/chat", {"messages": [USER] * 100_000}, {400}),
    "100,000 messages, to count": ("/api/extra/tokencount", {"messages": [USER] * 100_000}, {400}),
    "recursive tool": (CHAT, tools({"properties": {"a": {"$ref": "#"}}}), {200, 400}),
    "deep tool": (CHAT, tools(nested_schema(200)), {400}),
    "huge tool": (CHAT, tools({"properties": {f"p{n}": {} for n in range(5000)}}), {200}),
    "tool that is no schema": (CHAT, tools({"type": 5, "properties": [1], "required": {"a": 1}}), {200}),
    "tool of an unknown type": (CHAT, tools({"type": "nonsense"}), {200}),
    "too many tools": (CHAT, tools(*({} for _ in range(1000))), {400}),
    "no end of tools": (CHAT, tools(*({} for _ in range(1025))), {422}),
    "schema from elsewhere": (CHAT, schema({"$ref": "http://127.0.0.1:1/x"}), {400}),
    "schema of alternatives": (
        CHAT,
        schema({"allOf": [{"anyOf": [{"properties": {f"{n}{m}": {}}} for m in range(8)]} for n in range(8)]}),
        {400},
    ),
    "schema with a pattern that explodes": (
        CHAT,
        schema({"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"}),
        {200, 400},
    ),
    "schema of a long list": (CHAT, schema({"type": "array", "minItems": 10**6}), {200, 400}),
    "grammar that doubles": (GENERATE, grammar(doubling(60)), {400}),
    "grammar of groups": (GENERATE, grammar("root ::= " + "(" * 5000 + '"a"' + ")" * 5000), {400}),
    "grammar of repetitions": (GENERATE, grammar('root ::= (("a"{1000}){1000}){1000}'), {200, 400}),
    "grammar of a megabyte": (GENERATE, grammar(f'root ::= "{"a" * 10**6}"'), {400}),
    "10,000 stop strings": (GENERATE, {"stop_sequence": [f"stop {n}" for n in range(10_000)]}, {200}),
    "long stop strings": (GENERATE, {"stop_sequence": ["x" * 65_536]}, {400}),
    "long stop strings, OpenAI": (CHAT, {"messages": [USER], "stop": "x" * 65_536}, {400}),
    "long stop strings, Ollama": (
        "/api/generate",
        {"prompt": "a", "options": {"stop": ["x" * 65_536]}},
        {400},
    ),
    "many long stop strings": (GENERATE, {"stop_sequence": [f"{n:0>1000}" for n in range(256)]}, {400}),
    "long banned phrases": (GENERATE, {"banned_tokens": ["x" * 65_536]}, {400}),
    "all letters banned": (GENERATE, {"banned_tokens": [chr(n) for n in range(32, 700)]}, {200}),
    "long breakers": (
        GENERATE,
        {"dry_multiplier": 1, "dry_sequence_breakers": ["x" * 4096 + str(n) for n in range(500)]},
        {200},
    ),
    "n, huge": ("/v1/completions", {"prompt": "a", "n": 10**9}, {422}),
    "n times prompts": ("/v1/completions", {"prompt": ["a"] * 16, "n": 16}, {400}),
    "100,000 biases": (GENERATE, {"logit_bias": {str(n): 1 for n in range(100_000)}}, {200}),
    "biases of huge ids": (GENERATE, {"logit_bias": {str(BIG): 1, "-5": 1, "9" * 5000: 2}}, {200}),
    "200,000 bans": (GENERATE, {"custom_token_bans": ",".join(map(str, range(200_000)))}, {200}),
    "prompt of a megabyte": (GENERATE, {"prompt": "word " * 200_000}, {200}),
    "prompt of a megabyte without spaces": (GENERATE, {"prompt": "x" * 10**6}, {200}),
    "prompt of special tokens": (GENERATE, {"prompt": "<|im_end|>" * 100_000}, {200}),
    "prompt of placeholders": (GENERATE, {"prompt": "{{[INPUT]}}" * 20_000}, {200}),
    "memory of a megabyte": (GENERATE, {"prompt": "a", "memory": "word " * 200_000}, {200}),
    "numbers at their end": (
        GENERATE,
        {"prompt": "aaaaaaaaaaaaaaaaaaaa", "logprobs": True}
        | dict.fromkeys(("temperature", "dynatemp_range", "smoothing_factor", "dry_multiplier"), 1e308)
        | dict.fromkeys(("dry_base", "rep_pen", "frequency_penalty", "adaptive_target", "nsigma"), 1e308)
        | dict.fromkeys(("top_p", "tfs", "typical", "presence_penalty", "mirostat_eta"), -1e308),
        {200},
    ),
    "deep lists, ignored": (GENERATE, {"prompt": "a\ud800", "extra": nested(900)}, {200}),
    "deep lists, a message": (CHAT, {"messages": [USER | {"x": nested(900)}]}, {200}),
    "deep lists, of the template": (
        CHAT,
        {"messages": [USER], "chat_template_kwargs": {"a": nested(900)}},
        {200},
    ),
    "deep lists, a tool": (CHAT, tools({"a": nested(900)}), {400}),
    "deep lists, a format": ("/api/chat", {"messages": [USER], "format": {"a": nested(900)}}, {400}),
    "variables the template has": (
        CHAT,
        {"messages": [USER], "chat_template_kwargs": {"messages": 1, "bos_token": {"a": 1}}},
        {200, 400},
    ),
    "calls that are none": (
        CHAT,
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": [], "arguments": 5}}]}]},
        {400},
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes(fuzzed: LiveServer, name: str) -> None:
    path, body, statuses = EXTREMES[name]
    heard = answered_beside_others(fuzzed, path, json.dumps(body).encode())
    check(operation(path), heard)
    assert heard.status in statuses, heard.body[:300]


@pytest.mark.parametrize("depth", [1_000, 1_000_000])
def test_lists_too_deep_to_read(fuzzed: LiveServer, depth: int) -> None:
    body = b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}"
    heard = answered_beside_others(fuzzed, GENERATE, body)
    check(operation(GENERATE), heard)
    assert heard.status == (413 if depth > VALUES else 500)


def wire_models(base: type[WireModel] = WireModel) -> list[type[WireModel]]:
    """All bodies, and what is inside them; the application must have been imported."""
    found = {model for child in base.__subclasses__() for model in (child, *wire_models(child))}
    return sorted(found, key=lambda model: (model.__module__, model.__name__))


@pytest.mark.parametrize("junk", [1, "a", [], {}, None], ids=repr)
@pytest.mark.parametrize("model", wire_models(), ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_a_thousand_bad_items_are_one_error(model: type[WireModel], junk: Any) -> None:
    """Each error costs microseconds and memory, and a body has room for millions of bad items."""
    whole: list[Any] = [[junk] * 1000, [[junk] * 1000], dict.fromkeys(map(str, range(1000)), junk)]
    for name, field in model.model_fields.items():
        for value in whole:
            assert errors_of(model, {field.alias or name: value}) < 30, name


def errors_of(model: type[WireModel], body: dict[str, Any]) -> int:
    """How many errors a body has."""
    try:
        model.model_validate(body)
    except ValidationError as error:
        return error.error_count()
    return 0


class Counted(list[Any]):
    """A list that knows how much of it was looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        for value in super().__iter__():
            self.looked_at += 1
            yield value


@pytest.mark.parametrize(
    ("keyword", "value"), [("enum", "v"), ("enum", "v" * 100), ("anyOf", {"type": "null"})]
)
def test_a_schema_of_a_million_alternatives_is_not_read_to_its_end(keyword: str, value: Any) -> None:
    values = Counted([value] * 1_000_000)
    with pytest.raises(RequestError, match="longer than"):
        schema_to_gbnf({keyword: values})
    assert values.looked_at < 100_000


def test_a_schema_with_a_long_constant() -> None:
    with pytest.raises(RequestError, match="longer than"):
        schema_to_gbnf({"const": "x" * 1_000_000})


def operation(path: str) -> Operation:
    return next(found for found in operations("POST") if found.path == path)


def answered_beside_others(server: LiveServer, path: str, body: bytes) -> Heard:
    """The answer; while it is made, others are answered soon."""
    answers: list[Heard] = []
    asking = threading.Thread(target=lambda: answers.append(exchange(server.port, "POST", path, body)))
    asking.start()
    while asking.is_alive():
        assert exchange(server.port, "GET", "/ping", patience=SOON).status == 200
        asking.join(0.1)
    assert answers, "no answer, or one that was cut short"
    return answers[0]
