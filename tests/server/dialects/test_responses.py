"""The wire of the Responses API: what becomes of requests, and what responses look like."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.errors import EngineDeadError, RequestError
from engine.types import UNTIL_END, JsonGrammar, TokenLogprob, Usage
from server.chat.call import ChatCall, Tool, ToolChoice, ToolMode
from server.chat.message import ContentDelta, Delta, Ended, Ending, ReasoningDelta, ToolCallDelta
from server.dialects.responses import convert, schemas
from server.dialects.responses.answer import Answer
from server.dialects.responses.items import to_messages
from server.dialects.responses.schemas import ResponsesBody
from server.dialects.responses.store import ResponseStore, StoredResponse
from server.wire.replies import HttpError
from server.wire.sampler_fields import LEFT_OUT
from server.wire.tools import NO_TOOLS, read_tools
from tests.server.dialects.fields import GENERATION_CHANGES, check_lists, untold

TOOL: Any = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}

CALL_CHANGES: dict[str, Any] = {
    "input": "other",
    "instructions": "Be brief.",
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "text": {"format": FORMAT},
    "reasoning": {"effort": "low"},
}
REQUEST_CHANGES = GENERATION_CHANGES | {
    "max_output_tokens": 6, "stop": "x", "seed": 4, "top_logprobs": 2,
    "include": ["message.output_text.logprobs"],
}  # fmt: skip
READ_BY_ROUTES = {"stream", "genkey", "store", "metadata", "previous_response_id"}


def body(**fields: Any) -> ResponsesBody:
    return ResponsesBody.model_validate({"input": "hello"} | fields)


def call(**fields: Any) -> ChatCall:
    read = body(**fields)
    offer = read_tools(read.tools, untold)
    return convert.chat_call(read, to_messages(read.input, offer, untold), offer, untold)


def request(**fields: Any) -> Any:
    return convert.base_request(body(**fields), "id", None)


@pytest.mark.parametrize("name", CALL_CHANGES)
def test_mapped_fields_change_the_call(name: str) -> None:
    assert call(**{name: CALL_CHANGES[name]}) != call()


@pytest.mark.parametrize("name", REQUEST_CHANGES)
def test_mapped_fields_change_the_request(name: str) -> None:
    assert request(**{name: REQUEST_CHANGES[name]}) != request()


def test_every_field_is_mapped_or_listed() -> None:
    mapped = CALL_CHANGES.keys() | REQUEST_CHANGES.keys() | READ_BY_ROUTES
    check_lists(ResponsesBody, mapped, schemas.NOT_YET, LEFT_OUT, schemas.IGNORED, schemas.REFUSED)


@pytest.mark.parametrize("name", schemas.REFUSED)
def test_what_would_change_the_question_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name}: "):
        call(**{name: {"id": "x"}})
    assert call(**{name: None}) == call(**{name: False}) == call()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, UNTIL_END),
        ({"max_output_tokens": 7, "max_length": 9}, 7),
        ({"max_length": 9}, 9),
        ({"max_output_tokens": 0}, 0),
        ({"max_output_tokens": -1}, UNTIL_END),
        ({"max_output_tokens": -3}, UNTIL_END),
        ({"n_predict": 9}, 9),
    ],
)
def test_lengths(fields: dict[str, Any], expected: int) -> None:
    assert request(**fields).max_tokens == expected


def test_probabilities() -> None:
    included = {"include": [convert.LOGPROBS]}
    assert request().logprobs is None
    assert request(**included).logprobs == 0
    assert request(**included, top_logprobs=2).logprobs == 2


def test_the_server_may_set_the_usual_length() -> None:
    assert convert.base_request(body(), "id", 33).max_tokens == 33


def test_what_is_said_again_of_a_tool_is_json() -> None:
    parameters = {"maximum": float("inf"), "minimum": float("nan")}
    [tool] = body(tools=[TOOL | {"parameters": parameters}]).tools
    assert tool["parameters"] == {"maximum": sys.float_info.max, "minimum": None}


@pytest.mark.parametrize(
    "fields",
    [
        {"input": None},
        {"input": 7},
        {"tools": ["look"]},
        {"tool_choice": 7},
        {"reasoning": {"effort": "much"}},
        {"metadata": {str(number): "x" for number in range(17)}},
        {"text": {"format": {"type": "grammar"}}},
        {"text": {"format": FORMAT | {"schema": {"minimum": float("nan")}}}},
        {"tool_choice": {"type": "allowed_tools", "tools": [{"name": float("nan")}]}},
    ],
)
def test_bad_bodies_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        body(**fields)


@pytest.mark.parametrize(
    ("choice", "expected", "tools"),
    [
        ("auto", ToolChoice(), 2),
        ("none", ToolChoice(ToolMode.NONE), 2),
        ("required", ToolChoice(ToolMode.REQUIRED), 2),
        ({"type": "function", "name": "look"}, ToolChoice(ToolMode.REQUIRED, "look"), 2),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "look"}, {}],
            },
            ToolChoice(ToolMode.REQUIRED, allowed=frozenset({"look"})),
            2,
        ),
    ],
)
def test_tool_choices(choice: Any, expected: ToolChoice, tools: int) -> None:
    made = call(tools=[TOOL, TOOL | {"name": "listen"}], tool_choice=choice)
    assert made.tool_choice == expected
    assert len(made.tools) == tools
    assert made.tools[0] == Tool("look", "Looks.", {"type": "object"})


def test_a_choice_of_one_tool_must_name_it() -> None:
    with pytest.raises(RequestError, match=r"tool_choice\.name"):
        call(tools=[TOOL], tool_choice={"type": "function"})


def test_formats_bind_the_reply() -> None:
    made = call(text={"format": FORMAT}).grammar
    assert isinstance(made, JsonGrammar)
    assert json.loads(made.schema) == SCHEMA
    assert call(text={"format": {"type": "json_object"}}).grammar == JsonGrammar('{"type": "object"}')
    assert call(text={"format": {"type": "text"}}).grammar is None
    with pytest.raises(RequestError, match=r"text\.format\.schema"):
        call(text={"format": {"type": "json_schema"}})


@pytest.mark.parametrize(
    ("effort", "expected"), [("none", "none"), ("minimal", "minimal"), ("xhigh", "high"), (None, "")]
)
def test_efforts(effort: str | None, expected: str) -> None:
    assert call(reasoning={"effort": effort, "summary": "auto"}).reasoning_effort == expected


def said(role: str, *texts: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"role": role, "content": [{"type": kind, "text": text} for text in texts]}


def messages_of(items: Any, earlier: Any = ()) -> Any:
    return to_messages(items, NO_TOOLS, untold, earlier)


FUNCTION = {"name": "look", "arguments": "{}"}
CALL_ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1"} | FUNCTION


def test_items_become_messages() -> None:
    other = CALL_ITEM | {"call_id": "call_2"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "seen"}
    items = [
        {"role": "developer", "content": "Be brief."},
        said("user", "hel", "lo") | {"type": "message"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        said("assistant", "I look."),
        CALL_ITEM,
        other,
        result,
        result | {"call_id": "call_9", "output": [{"type": "input_text", "text": "a"}]},
        CALL_ITEM,
    ]
    calls = [{"id": name, "type": "function", "function": FUNCTION} for name in ("call_1", "call_2")]
    assert messages_of(items) == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "seen", "name": "look"},
        {"role": "tool", "tool_call_id": "call_9", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": calls[:1]},
    )


def test_a_conversation_goes_on_after_what_was_kept() -> None:
    earlier = messages_of([said("user", "hello"), CALL_ITEM])
    before = json.dumps(earlier)
    result = {"type": "function_call_output", "call_id": "call_1", "output": "seen"}
    made = messages_of([result, CALL_ITEM], earlier)
    assert made[:2] == earlier
    assert made[2] == {"role": "tool", "tool_call_id": "call_1", "content": "seen", "name": "look"}
    assert messages_of("And now?", earlier) == (*earlier, {"role": "user", "content": "And now?"})
    assert json.dumps(earlier) == before, "what was kept stays as it is"


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"role": "user", "content": [{"type": "input_image"}]}, r"input\.1\.content\.0: no model that sees"),
        ({"role": "user", "content": [{"type": "video"}]}, "so video is refused"),
        ({"role": "user", "content": [{"type": "smell"}]}, r"input\.1\.content\.0: 'smell' is no type"),
        ({"role": "user", "content": ["x"]}, "must be an object"),
        ({"role": "user"}, r"input\.1\.content: must be text or a list"),
        ({"role": "tool", "content": "x"}, r"input\.1\.role: must be one of user"),
        ({"content": "x"}, r"input\.1\.role: must be text"),
        ({"type": "function_call", "name": "x", "arguments": "{}"}, "call_id: must be text"),
        ({"type": "function_call", "name": "x", "arguments": {}, "call_id": "y"}, "arguments: must be text"),
        ({"type": "function_call_output", "call_id": "x"}, r"input\.1\.output: must be text or"),
    ],
)
def test_items_that_nobody_can_read(item: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        messages_of([said("user", "x"), item])


USAGE = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=3)
LOGPROB = TokenLogprob(5, b"Yes", -0.5, (TokenLogprob(5, b"Yes", -0.5),))
ROUND: list[Delta] = [
    ReasoningDelta("H"),
    ReasoningDelta("m."),
    ContentDelta("I "),
    ContentDelta("look.", (LOGPROB,)),
    ToolCallDelta(0, id="call_1", name="look"),
    ToolCallDelta(0, '{"at"'),
    ToolCallDelta(0, ': "x"}'),
    ToolCallDelta(1, "{}", "call_2", "listen"),
    Ended(Ending.TOOL_CALLS, USAGE),
]


def told(deltas: list[Delta], **fields: Any) -> tuple[list[dict[str, Any]], Answer]:
    answer = Answer("7", "m", 11, convert.echo(body(**fields)))
    events = answer.opening()
    for delta in deltas:
        events += answer.end(delta, 2, 12) if isinstance(delta, Ended) else answer.events(delta)
    return json.loads(json.dumps(events)), answer


def test_the_output_of_a_response() -> None:
    events, answer = told(ROUND)
    entry = {"token": "Yes", "token_id": 5, "logprob": -0.5, "bytes": [89, 101, 115]}
    text = {"type": "output_text", "text": "I look.", "annotations": []}
    assert answer.whole()["output"] == [
        {
            "type": "reasoning", "id": "rs_700", "summary": [], "status": "completed",
            "content": [{"type": "reasoning_text", "text": "Hm."}],
        },
        {
            "type": "message", "id": "msg_701", "role": "assistant", "status": "completed",
            "content": [text | {"logprobs": [entry | {"top_logprobs": [entry]}]}],
        },
        {
            "type": "function_call", "id": "fc_702", "call_id": "call_1", "name": "look",
            "arguments": '{"at": "x"}', "status": "completed",
        },
        {
            "type": "function_call", "id": "fc_703", "call_id": "call_2", "name": "listen",
            "arguments": "{}", "status": "completed",
        },
    ]  # fmt: skip
    assert events[-1]["response"] == answer.whole()
    assert answer.thoughts == "Hm."
    assert answer.ended_well
    assert not told(ROUND[:-1])[1].ended_well
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "listen", "arguments": "{}"}},
    ]
    assert answer.message == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "Hm.",
        "tool_calls": calls,
    }


def test_a_turn_with_text_round_a_call() -> None:
    pieces: list[Delta] = [ContentDelta("a "), ToolCallDelta(0, "{}", "call_1", "look"), ContentDelta("b")]
    _, answer = told([*pieces, Ended(Ending.TOOL_CALLS, USAGE)])
    assert answer.message["content"] == "a b"
    assert [item["type"] for item in answer.whole()["output"]] == ["message", "function_call", "message"]


def test_the_head_of_a_response() -> None:
    form = {"format": FORMAT}
    _, answer = told(ROUND, metadata={"a": "b"}, instructions="x", text=form, tools=[TOOL], temperature=0)
    whole = answer.whole()
    assert (whole["id"], whole["object"], whole["model"], whole["created_at"]) == (
        "resp_7",
        "response",
        "m",
        11,
    )
    assert (whole["status"], whole["completed_at"]) == ("completed", 12)
    assert (whole["error"], whole["incomplete_details"]) == (None, None)
    assert (whole["metadata"], whole["instructions"], whole["temperature"]) == ({"a": "b"}, "x", 0.0)
    assert (whole["text"], whole["tool_choice"]) == (form, "auto")
    assert whole["tools"] == [TOOL | {"strict": True}]
    assert whole["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }


def test_the_events_of_a_response() -> None:
    events, _ = told(ROUND)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    indexes = [event["output_index"] for event in events if "output_index" in event]
    assert indexes == sorted(indexes)
    assert set(indexes) == {0, 1, 2, 3}
    assert events[0]["response"]["status"] == events[1]["response"]["status"] == "in_progress"
    assert events[0]["response"]["usage"] is None
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item["status"] for item in added] == ["in_progress"] * 4
    assert [item.get("content") for item in added] == [[], [], None, None]
    part = next(event["part"] for event in events if event["type"] == "response.content_part.added")
    assert part == {"type": "reasoning_text", "text": ""}


def test_a_reply_that_was_cut_short_is_incomplete() -> None:
    events, answer = told([ContentDelta("x"), Ended(Ending.LENGTH, USAGE)])
    whole = answer.whole()
    assert whole["status"] == whole["output"][0]["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    assert whole["completed_at"] is None
    assert events[-1]["type"] == "response.incomplete"


def test_a_failure() -> None:
    events, answer = told([ContentDelta("x"), Ended(Ending.ERROR, USAGE, "out of memory")])
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "out of memory"}
    assert not answer.ended_well
    with pytest.raises(EngineDeadError, match="out of memory"):
        answer.whole()


def test_an_empty_reply_has_no_output() -> None:
    events, answer = told([ContentDelta(""), ReasoningDelta(""), Ended(Ending.STOP, USAGE)])
    assert answer.whole()["output"] == []
    assert len(events) == 3
    assert answer.message == {"role": "assistant", "content": ""}


PIECES = st.lists(
    st.builds(ContentDelta, st.text(max_size=5))
    | st.builds(ReasoningDelta, st.text(max_size=5))
    | st.builds(lambda index: ToolCallDelta(index, "{}", f"call_{index}", "look"), st.integers(0, 2)),
    max_size=12,
)
DELTAS = {
    "response.output_text.delta": "response.output_text.done",
    "response.reasoning_text.delta": "response.reasoning_text.done",
    "response.function_call_arguments.delta": "response.function_call_arguments.done",
}


@settings(max_examples=60, deadline=None)
@given(PIECES)
def test_the_events_add_up_to_the_response(pieces: list[Delta]) -> None:
    events, answer = told([*pieces, Ended(Ending.STOP, USAGE)])
    texts: dict[str, str] = {}
    done: list[Any] = []
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(texts) == len(done)
            texts[event["item"]["id"]] = ""
        elif event["type"] in DELTAS:
            texts[event["item_id"]] += event["delta"]
        elif event["type"] in DELTAS.values():
            assert texts[event["item_id"]] == event.get("text", event.get("arguments"))
        elif event["type"] == "response.output_item.done":
            done.append(event["item"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert done == answer.whole()["output"]
    assert len({item["id"] for item in done}) == len(done)


def stored(response_id: str, text: str = "") -> StoredResponse:
    return StoredResponse({"id": response_id}, ({"role": "user", "content": text},))


def test_the_oldest_response_is_forgotten() -> None:
    store = ResponseStore(responses=3)
    for number in range(5):
        store.put(stored(f"resp_{number}"))
    assert [store.get(f"resp_{number}").reply["id"] for number in (2, 3, 4)] == ["resp_2", "resp_3", "resp_4"]
    for gone in ("resp_1", "resp_9"):
        with pytest.raises(HttpError, match="not found") as caught:
            store.get(gone)
        assert caught.value.status == 404


def test_large_responses_take_the_room_of_several() -> None:
    store = ResponseStore(characters=1000)
    for number in range(3):
        store.put(stored(f"resp_{number}", "x" * 200))
    store.put(stored("resp_3", "x" * 600))
    store.put(stored("resp_4", "x" * 2000))
    assert [store.get(f"resp_{number}").reply["id"] for number in (2, 3)] == ["resp_2", "resp_3"]
    for gone in ("resp_1", "resp_4"):
        with pytest.raises(HttpError):
            store.get(gone)
