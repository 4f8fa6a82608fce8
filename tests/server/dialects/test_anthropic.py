"""Anthropic's wire: what becomes of requests, and what answers look like."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.errors import BusyError, EngineDeadError, NkatError, RequestError
from engine.types import FinishReason, JsonGrammar, SamplingParams, Usage
from server.chat.call import ChatCall, Tool, ToolChoice, ToolMode
from server.chat.message import ContentDelta, Delta, Ended, Ending, ReasoningDelta, ToolCallDelta
from server.dialects.anthropic import convert, schemas
from server.dialects.anthropic.answer import Answer
from server.dialects.anthropic.errors import error_reply
from server.dialects.anthropic.schemas import ConversationBody, MessagesBody, Turn
from server.dialects.anthropic.turns import to_messages
from server.wire.replies import HttpError
from server.wire.sampler_fields import LEFT_OUT
from tests.server.dialects.fields import GENERATION_CHANGES, check_lists, untold

HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

CALL_CHANGES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "other"}],
    "system": "Be brief.",
    "tools": [TOOL],
    "tool_choice": {"type": "any"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}
REQUEST_CHANGES = GENERATION_CHANGES | {"max_tokens": 6, "stop_sequences": ["x"]}
del REQUEST_CHANGES["max_length"], REQUEST_CHANGES["n_predict"]
READ_BY_ROUTES = {"stream", "genkey"}


def body(**fields: Any) -> MessagesBody:
    return MessagesBody.model_validate({"messages": HELLO, "max_tokens": 5} | fields)


def call(**fields: Any) -> ChatCall:
    return convert.chat_call(body(**fields), untold)


def request(**fields: Any) -> Any:
    return convert.base_request(body(**fields), "id")


@pytest.mark.parametrize("name", CALL_CHANGES)
def test_mapped_fields_change_the_call(name: str) -> None:
    assert call(**{name: CALL_CHANGES[name]}) != call()


@pytest.mark.parametrize("name", REQUEST_CHANGES)
def test_mapped_fields_change_the_request(name: str) -> None:
    assert request(**{name: REQUEST_CHANGES[name]}) != request()


def test_every_field_is_mapped_or_listed() -> None:
    mapped = CALL_CHANGES.keys() | REQUEST_CHANGES.keys() | READ_BY_ROUTES
    check_lists(MessagesBody, mapped, schemas.NOT_YET, LEFT_OUT, schemas.IGNORED)
    check_lists(ConversationBody, CALL_CHANGES, schemas.COUNT_IGNORED)


def test_without_samplers_the_model_is_sampled_as_it_is() -> None:
    neutral = SamplingParams()
    made = request().sampling
    for name in ("temperature", "top_k", "top_p", "min_p", "rep_pen"):
        assert getattr(made, name) == getattr(neutral, name), name


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"max_tokens": None},
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"tools": ["look"]},
        {"tool_choice": 7},
        {"thinking": {"type": "enabled", "budget_tokens": -1}},
    ],
)
def test_bad_bodies_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        body(**fields)


def messages_of(*turns: tuple[str, Any], system: Any = "") -> list[dict[str, Any]]:
    listed = [{"role": role, "content": content} for role, content in turns]
    return [dict(message) for message in call(messages=listed, system=system).messages]


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "cache_control": {"type": "ephemeral"}}


def test_texts_and_neighbours_become_one_message() -> None:
    assert messages_of(("user", [text("a"), text("b")]), ("user", "c"), system=[text("s"), text("t")]) == [
        {"role": "system", "content": "s\nt"},
        {"role": "user", "content": "a\nb\nc"},
    ]
    assert messages_of(("user", "")) == messages_of(("user", [])) == [{"role": "user", "content": ""}]


def test_a_round_of_tools() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "ü"}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("seen")]}
    failed = {"type": "tool_result", "tool_use_id": "toolu_2", "content": "blind", "is_error": True}
    empty = {"type": "tool_result", "tool_use_id": "toolu_1"}
    made = messages_of(
        ("user", "hello"),
        ("assistant", [thought, hidden, text("I look."), use]),
        ("user", [result, failed, empty, text("And now?")]),
    )
    function = {"name": "look", "arguments": '{"at": "ü"}'}
    assert made == [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "seen", "name": "look"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: blind"},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "", "name": "look"},
        {"role": "user", "content": "And now?"},
    ]


@pytest.mark.parametrize(
    ("role", "block", "told"),
    [
        ("user", {"type": "image", "source": {}}, "messages.1.content.0: no model that sees"),
        ("user", {"type": "document"}, "so document is refused"),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]},
            "0.content.0: no",
        ),
        ("user", {"type": "tool_result", "content": "x"}, "tool_use_id: must be text"),
        ("user", {"type": "tool_result", "tool_use_id": "x", "content": ["x"]}, "a list of blocks"),
        (
            "user",
            {"type": "tool_use", "id": "x", "name": "y", "input": {}},
            "content.0: 'tool_use' is no type",
        ),
        ("user", {"text": "x"}, "content.0: 'None' is no type"),
        ("assistant", {"type": "text"}, "text: must be text"),
        ("assistant", {"type": "tool_use", "id": "x", "name": "y", "input": []}, "input: must be an object"),
        ("assistant", {"type": "tool_use", "id": "x", "input": {}}, "name: must be text"),
        ("assistant", {"type": "thinking"}, "thinking: must be text"),
    ],
)
def test_blocks_that_nobody_can_read(role: str, block: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        messages_of(("user" if role == "assistant" else "assistant", "x"), (role, [block]))


TEXTS = st.sampled_from(["", "x", "ü\n"])
PARTS = st.builds(lambda kind, text: {"type": kind, "text": text}, st.sampled_from(["text", "image"]), TEXTS)
JSON = st.none() | st.booleans() | TEXTS | st.lists(TEXTS | PARTS, max_size=2) | PARTS
KINDS = st.sampled_from(["text", "image", "tool_use", "tool_result", "thinking", None, 7])
BLOCKS = st.lists(
    st.builds(
        lambda kind, rest: rest | {"type": kind},
        KINDS,
        st.dictionaries(
            st.sampled_from(
                ["text", "id", "name", "input", "tool_use_id", "content", "thinking", "is_error"]
            ),
            JSON,
        ),
    ),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), BLOCKS), min_size=1, max_size=3))
def test_any_blocks_are_read_or_refused(turns: list[tuple[str, Any]]) -> None:
    listed = [Turn.model_validate({"role": role, "content": content}) for role, content in turns]
    try:
        made = to_messages("", listed, lambda fields: None)
    except RequestError:
        return
    assert all(isinstance(message["content"], str) for message in made)
    assert ("assistant", "assistant") not in set(pairwise(message["role"] for message in made))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "none"}, ToolChoice(ToolMode.NONE)),
        ({"type": "any"}, ToolChoice(ToolMode.REQUIRED)),
        ({"type": "tool", "name": "look"}, ToolChoice(ToolMode.REQUIRED, "look")),
    ],
)
def test_tool_choices(choice: Any, expected: ToolChoice) -> None:
    made = call(tools=[TOOL], tool_choice=choice)
    assert made.tool_choice == expected
    assert made.tools == (Tool("look", "Looks.", {"type": "object"}),)
    assert made.parallel_tool_calls is None
    if choice is not None:
        alone = call(tools=[TOOL], tool_choice=choice | {"disable_parallel_tool_use": True})
        assert alone.parallel_tool_calls is False


def test_a_choice_of_one_tool_must_name_it() -> None:
    with pytest.raises(RequestError, match=r"tool_choice\.name"):
        call(tools=[TOOL], tool_choice={"type": "tool"})


@pytest.mark.parametrize(
    ("fields", "effort", "budget"),
    [
        ({}, "none", None),
        ({"thinking": {"type": "disabled"}}, "none", None),
        ({"thinking": {"type": "enabled", "budget_tokens": 99}}, "", 99),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "high", None),
        ({"thinking": {"type": "between_tools"}}, "", None),
        ({"output_config": {"effort": "low"}}, "none", None),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 99}, "output_config": {"effort": "low"}},
            "",
            99,
        ),
    ],
)
def test_thinking(fields: dict[str, Any], effort: str, budget: int | None) -> None:
    made = call(**fields)
    assert (made.reasoning_effort, made.thinking_budget) == (effort, budget)


def test_formats_bind_the_reply() -> None:
    made = call(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}).grammar
    assert isinstance(made, JsonGrammar)
    assert json.loads(made.schema) == SCHEMA


USAGE = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=3)
USAGE_REPLY = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 3,
    "output_tokens": 4,
}
ROUND: list[Delta] = [
    ReasoningDelta("Hm"),
    ReasoningDelta("."),
    ContentDelta("I "),
    ContentDelta("look."),
    ToolCallDelta(0, id="call_1", name="look"),
    ToolCallDelta(0, '{"at"'),
    ToolCallDelta(0, ': "x"}'),
    ToolCallDelta(1, "{}", "call_2", "listen"),
    Ended(Ending.TOOL_CALLS, USAGE),
]


def told(deltas: list[Delta], *, thinking: bool = True) -> tuple[list[dict[str, Any]], Answer]:
    answer = Answer("msg_1", "m", thinking)
    events = answer.opening(10)
    for delta in deltas:
        events += answer.events(delta)
    return events, answer


def test_a_whole_message() -> None:
    _, answer = told(ROUND)
    assert answer.whole() == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "x"}},
            {"type": "tool_use", "id": "call_2", "name": "listen", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE_REPLY,
    }


def test_the_events_of_a_message() -> None:
    events, _ = told(ROUND)
    assert [event["type"] for event in events] == [
        "message_start", "ping",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    start = {"type": "tool_use", "id": "call_1", "name": "look", "input": {}}
    assert {"type": "content_block_start", "index": 2, "content_block": start} in events
    change = {"type": "input_json_delta", "partial_json": '{"at"'}
    assert {"type": "content_block_delta", "index": 2, "delta": change} in events
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"] == USAGE_REPLY
    start = events[0]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["input_tokens"]) == ([], None, 10)


def test_thoughts_that_nobody_asked_for_are_not_shown() -> None:
    events, answer = told(
        [ReasoningDelta("Hm."), ContentDelta("Yes."), Ended(Ending.LENGTH, USAGE)], thinking=False
    )
    assert answer.whole()["content"] == [{"type": "text", "text": "Yes."}]
    assert answer.whole()["stop_reason"] == "max_tokens"
    assert "Hm." not in json.dumps(events)


@pytest.mark.parametrize(
    ("stops", "ending", "finish", "reason", "met"),
    [
        (("x",), Ending.STOP, FinishReason.STOP, "stop_sequence", "x"),
        (("x", "y"), Ending.STOP, FinishReason.STOP, "stop_sequence", None),
        (("x",), Ending.STOP, FinishReason.EOS, "end_turn", None),
        ((), Ending.STOP, FinishReason.STOP, "end_turn", None),
        (("x",), Ending.TOOL_CALLS, FinishReason.STOP, "tool_use", None),
        (("x",), Ending.LENGTH, FinishReason.LENGTH, "max_tokens", None),
    ],
)
def test_reasons_to_stop(
    stops: tuple[str, ...], ending: Ending, finish: FinishReason, reason: str, met: str | None
) -> None:
    answer = Answer("msg_1", "m", False, stops)
    events = answer.events(Ended(ending, USAGE), finish)
    assert events[0]["delta"] == {"stop_reason": reason, "stop_sequence": met}
    assert (answer.whole()["stop_reason"], answer.whole()["stop_sequence"]) == (reason, met)


def test_an_empty_reply_has_no_blocks() -> None:
    events, answer = told([ContentDelta(""), Ended(Ending.STOP, USAGE)])
    assert answer.whole()["content"] == []
    assert [event["type"] for event in events[2:]] == ["message_delta", "message_stop"]


def test_arguments_that_were_cut_short_are_lost() -> None:
    deltas: list[Delta] = [ToolCallDelta(0, '{"at": ', "call_1", "look"), Ended(Ending.LENGTH, USAGE)]
    _, answer = told(deltas)
    assert answer.whole()["content"][0]["input"] == {}


def test_a_failure_is_an_error_event() -> None:
    events, answer = told([ContentDelta("x"), Ended(Ending.ERROR, USAGE, "out of memory")])
    assert events[-1] == {"type": "error", "error": {"type": "api_error", "message": "out of memory"}}
    with pytest.raises(EngineDeadError, match="out of memory"):
        answer.whole()


PIECES = st.lists(
    st.builds(ContentDelta, st.text(max_size=5))
    | st.builds(ReasoningDelta, st.text(max_size=5))
    | st.builds(lambda index: ToolCallDelta(index, "{}", f"call_{index}", "look"), st.integers(0, 2)),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(PIECES, st.booleans())
def test_the_events_add_up_to_the_message(pieces: list[Delta], thinking: bool) -> None:
    events, answer = told([*pieces, Ended(Ending.STOP, USAGE)], thinking=thinking)
    blocks: list[dict[str, Any]] = []
    open_block: int | None = None
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert open_block is None
                open_block = event["index"]
                assert open_block == len(blocks)
                blocks.append(dict(event["content_block"]))
            case "content_block_delta":
                assert event["index"] == open_block
                delta, block = event["delta"], blocks[-1]
                if delta["type"] == "input_json_delta":
                    block["input"] = json.loads(delta["partial_json"])
                else:
                    block[block["type"]] += delta[block["type"]]
            case "content_block_stop":
                assert event["index"] == open_block
                open_block = None
    assert open_block is None
    assert blocks == answer.whole()["content"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (HttpError(422, "max_tokens: missing"), 400, "invalid_request_error"),
        (HttpError(500, "Error parsing input."), 400, "invalid_request_error"),
        (HttpError(401, "no", "unauthorized"), 401, "authentication_error"),
        (RequestError("no"), 400, "invalid_request_error"),
        (BusyError("later"), 503, "overloaded_error"),
        (EngineDeadError("gone"), 500, "api_error"),
    ],
)
def test_errors(error: HttpError | NkatError, status: int, kind: str) -> None:
    reply = error_reply(error)
    said = json.loads(bytes(reply.body))
    assert reply.status_code == status
    assert said["type"] == "error"
    assert said["error"] == {"type": kind, "message": str(error)}
    assert said["detail"]["msg"] == str(error)
