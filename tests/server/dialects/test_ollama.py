"""Ollama's wire: what becomes of requests, and what answers look like."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.errors import BusyError, EngineDeadError, NkatError, RequestError
from engine.types import (
    UNTIL_END,
    Event,
    FinishReason,
    JsonGrammar,
    ModelInfo,
    TextPrompt,
    TokenLogprob,
    Usage,
)
from server.chat.call import ChatCall, Tool
from server.chat.message import ContentDelta, Delta, Ended, Ending, ReasoningDelta, ToolCallDelta
from server.dialects.ollama import convert, models, schemas
from server.dialects.ollama.answer import Answer, RawReader
from server.dialects.ollama.errors import error_reply
from server.dialects.ollama.models import ModelFile
from server.dialects.ollama.schemas import OllamaChatBody, OllamaGenerateBody, OllamaShowBody, Options
from server.wire.lenient import COUNT_LIMIT
from server.wire.replies import HttpError
from server.wire.sampler_fields import LEFT_OUT
from tests.server.chat.templates import CHATML
from tests.server.dialects.fields import GENERATION_CHANGES, check_lists, untold

HELLO: Any = [{"role": "user", "content": "hello"}]
FUNCTION: Any = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
TOOL: Any = {"type": "function", "function": FUNCTION}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

OPTION_CHANGES = GENERATION_CHANGES | {
    "num_predict": 6, "num_ctx": 98, "stop": "x", "seed": 4, "repeat_last_n": 7, "tfs_z": 0.4,
    "typical_p": 0.4,
}  # fmt: skip
SHARED_CALL_CHANGES: dict[str, Any] = {"format": "json", "think": False}
CHAT_CHANGES = SHARED_CALL_CHANGES | {"messages": [{"role": "user", "content": "other"}], "tools": [TOOL]}
GENERATE_CHANGES = SHARED_CALL_CHANGES | {"prompt": "other", "system": "Be brief."}
REFUSED = {"suffix": "x", "images": ["aGk="]}
REQUEST_CHANGES: dict[str, Any] = {"truncate": False, "options": {"temperature": 0}, "logprobs": True}
READ_BY_ROUTES = {"keep_alive", "stream", "raw", "context", "top_logprobs"}


def chat(**fields: Any) -> ChatCall:
    return convert.chat_call(OllamaChatBody.model_validate({"messages": HELLO} | fields), untold)


def generate(**fields: Any) -> ChatCall:
    return convert.generate_call(OllamaGenerateBody.model_validate({"prompt": "hello"} | fields))


def request(**fields: Any) -> Any:
    return convert.base_request(OllamaChatBody.model_validate({"messages": HELLO} | fields), "id", None)


def with_options(**options: Any) -> Any:
    return request(options=options)


@pytest.mark.parametrize("name", CHAT_CHANGES)
def test_mapped_fields_change_the_chat(name: str) -> None:
    assert chat(**{name: CHAT_CHANGES[name]}) != chat()


@pytest.mark.parametrize("name", GENERATE_CHANGES)
def test_mapped_fields_change_the_generation(name: str) -> None:
    assert generate(**{name: GENERATE_CHANGES[name]}) != generate()


@pytest.mark.parametrize("name", REQUEST_CHANGES)
def test_mapped_fields_change_the_request(name: str) -> None:
    assert request(**{name: REQUEST_CHANGES[name]}) != request()


@pytest.mark.parametrize("name", OPTION_CHANGES)
def test_mapped_options_change_the_request(name: str) -> None:
    assert with_options(**{name: OPTION_CHANGES[name]}) != with_options()


def test_every_field_is_mapped_or_listed() -> None:
    read = REQUEST_CHANGES.keys() | READ_BY_ROUTES
    only_generate = {"raw", "context"}
    check_lists(OllamaChatBody, CHAT_CHANGES.keys() | read - only_generate, schemas.CHAT_IGNORED)
    mapped = GENERATE_CHANGES.keys() | read | REFUSED.keys()
    check_lists(OllamaGenerateBody, mapped, schemas.GENERATE_NOT_YET, schemas.CHAT_IGNORED)
    check_lists(
        Options, OPTION_CHANGES.keys() | {"genkey"}, schemas.NOT_YET, LEFT_OUT, schemas.OPTIONS_IGNORED
    )
    check_lists(OllamaShowBody, (), schemas.SHOW_IGNORED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_model_cannot_do_is_refused(name: str) -> None:
    for read in (generate, raw):
        with pytest.raises(RequestError, match=name):
            read(**{name: REFUSED[name]})


def raw(**fields: Any) -> Any:
    body = OllamaGenerateBody.model_validate({"prompt": "hello", "raw": True} | fields)
    return convert.raw_request(body, "id", 33)


def test_raw_prompts_stay_as_they_are() -> None:
    made = raw(format=SCHEMA, options={"stop": ["x"]})
    assert made.prompt == TextPrompt("hello")
    assert (made.max_tokens, made.stop) == (33, ("x",))
    assert json.loads(made.grammar.schema) == SCHEMA
    for name, value in (("system", "x"), ("context", [1])):
        with pytest.raises(RequestError, match="raw"):
            raw(**{name: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "x"},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"content": "x"}]},
        {"tools": ["look"]},
        {"options": [1]},
        {"options": {"temperature": "warm"}},
        {"format": 7},
    ],
)
def test_bad_bodies_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OllamaChatBody.model_validate({"messages": HELLO} | fields)


@pytest.mark.parametrize("context", [[-1], ["1"], [1.5], "12"])
def test_a_bad_context_is_refused(context: Any) -> None:
    with pytest.raises(ValidationError):
        OllamaGenerateBody.model_validate({"context": context})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 400),
        ({"num_predict": 7, "max_length": 9}, 7),
        ({"num_predict": 0}, 0),
        ({"num_predict": -1}, UNTIL_END),
        ({"num_predict": -2}, UNTIL_END),
        ({"num_predict": -3}, UNTIL_END),
        ({"max_length": 9}, 9),
        ({"max_length": -1}, UNTIL_END),
        ({"n_predict": 9}, 9),
    ],
)
def test_lengths(options: dict[str, Any], expected: int) -> None:
    assert with_options(**options).max_tokens == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tfs_z": 0.3, "tfs": 0.9}, {"tfs": 0.3}),
        ({"typical_p": 0.3}, {"typical": 0.3}),
        ({"seed": 7, "sampler_seed": 8}, {"seed": 7}),
        ({"repeat_last_n": 64, "repeat_penalty": 1.2}, {"rep_pen_range": 64, "rep_pen": 1.2}),
        ({"repeat_last_n": -1, "repeat_penalty": 1.2}, {"rep_pen_range": COUNT_LIMIT, "rep_pen": 1.2}),
        (
            {"repeat_last_n": 0, "repeat_penalty": 1.2, "presence_penalty": 1, "frequency_penalty": 1},
            {"rep_pen": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
        ),
        ({"mirostat": 2, "mirostat_tau": 3}, {"mirostat": 2, "mirostat_tau": 3.0}),
        ({"temperature": 0}, {"temperature": 0.0}),
    ],
)
def test_samplers_have_ollamas_names(options: dict[str, Any], expected: dict[str, Any]) -> None:
    made = with_options(**options).sampling
    assert {name: getattr(made, name) for name in expected} == expected


def test_other_options() -> None:
    made = with_options(num_ctx=77, max_context_length=99, stop=["a", "b"], stop_sequence=["c"])
    assert (made.context_length, made.stop) == (77, ("a", "b"))
    assert request(logprobs=True).logprobs == 0
    assert request(logprobs=True, top_logprobs=3).logprobs == 3
    assert request(top_logprobs=3).logprobs is None


@pytest.mark.parametrize(("think", "effort"), [(None, ""), (True, ""), (False, "none"), ("low", "low")])
def test_thinking(think: Any, effort: str) -> None:
    assert chat(think=think).reasoning_effort == effort
    shown = convert.shows_thinking(OllamaChatBody.model_validate({"think": think}))
    assert shown == (think is not False)


def test_formats_bind_the_reply() -> None:
    made = chat(format=SCHEMA).grammar
    assert isinstance(made, JsonGrammar)
    assert json.loads(made.schema) == SCHEMA
    assert chat(format="json").grammar == JsonGrammar('{"type": "object"}')
    assert chat(format="").grammar is None
    with pytest.raises(RequestError, match="format"):
        chat(format="xml")


def test_prompts_are_the_users_turn() -> None:
    assert generate(system="Be brief.").messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    )


def test_only_the_first_prompt_has_a_bos() -> None:
    planned = replace(request(), prompt=TextPrompt("<s>hello"))
    assert convert.prompt_text(planned, "<s>", first=True) == "<s>hello"
    assert convert.prompt_text(planned, "<s>", first=False) == "hello"


def messages_of(*messages: Any) -> list[dict[str, Any]]:
    return [dict(message) for message in chat(messages=list(messages)).messages]


def calling(*names: str, **more: Any) -> dict[str, Any]:
    calls = [{"function": {"name": name, "arguments": {"at": "ü"}}} | more for name in names]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def result(**fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": "seen"} | fields


def whose(message: dict[str, Any]) -> tuple[Any, Any]:
    return message.get("tool_call_id"), message.get("name")


def test_a_round_of_tools() -> None:
    made = messages_of(*HELLO, calling("look", "listen", "look") | {"thinking": "Hm."}, result())
    assert made[1]["reasoning_content"] == "Hm."
    assert made[1]["tool_calls"][1] == {
        "id": "call_1_1",
        "type": "function",
        "function": {"name": "listen", "arguments": '{"at": "ü"}'},
    }
    assert made[2] == {"role": "tool", "content": "seen", "tool_call_id": "call_1_0", "name": "look"}


def test_results_find_their_calls() -> None:
    said = calling("look", "listen", "look")
    by_name = messages_of(
        said, *(result(tool_name=name) for name in ("look", "look", "listen", "look", "sing"))
    )
    assert [whose(message) for message in by_name[1:]] == [
        ("call_0_0", "look"), ("call_0_2", "look"), ("call_0_1", "listen"), (None, "look"), (None, "sing"),
    ]  # fmt: skip
    in_order = messages_of(said, result(), result(tool_call_id="call_0_2"), result(), result())
    assert [whose(message) for message in in_order[1:]] == [
        ("call_0_0", "look"), ("call_0_2", "look"), ("call_0_1", "listen"), (None, None),
    ]  # fmt: skip
    assert whose(messages_of(calling("look", id="abc"), result())[1]) == ("abc", "look")
    assert whose(messages_of(result(tool_call_id="x", tool_name="look"))[0]) == ("x", "look")


def test_images_are_refused_with_their_place() -> None:
    with pytest.raises(RequestError, match=r"messages\.1\.images: no model that sees"):
        messages_of(*HELLO, {"role": "user", "content": "?", "images": ["aGk="]})


def test_tools() -> None:
    assert chat(tools=[TOOL]).tools == (Tool("look", "Looks.", {"type": "object"}),)


USAGE = Usage(10, 4, 3, prompt_seconds=0.25, decode_seconds=0.5)
LOGPROB = TokenLogprob(5, b"Yes", -0.5)
ROUND: list[Delta] = [
    ReasoningDelta("Hm."),
    ContentDelta("I "),
    ContentDelta("look.", (LOGPROB,)),
    ToolCallDelta(0, id="call_1", name="look"),
    ToolCallDelta(0, '{"at"'),
    ToolCallDelta(0, ': "x"}'),
    ToolCallDelta(1, "{}", "call_2", "listen"),
    Ended(Ending.TOOL_CALLS, USAGE),
]


def told(deltas: list[Delta], *, talk: bool = True, thinking: bool = True) -> tuple[list[Any], Answer]:
    answer = Answer("m", talk, thinking, started=0, taken=40)
    lines = [line for delta in deltas for line in answer.lines(delta)]
    assert {line.pop("model") for line in lines} <= {"m"}
    for line in lines:
        made = datetime.fromisoformat(line.pop("created_at"))
        assert abs((datetime.now(UTC) - made).total_seconds()) < 60
    return lines, answer


def of_assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content} | more


def test_the_lines_of_a_chat() -> None:
    lines, _ = told(ROUND)
    last = lines.pop()
    entry = {"token": "Yes", "token_id": 5, "logprob": -0.5, "bytes": [89, 101, 115], "top_logprobs": []}
    first = {"id": "call_1", "function": {"index": 0, "name": "look", "arguments": {"at": "x"}}}
    second = {"id": "call_2", "function": {"index": 1, "name": "listen", "arguments": {}}}
    assert lines == [
        {"message": of_assistant("", thinking="Hm."), "done": False},
        {"message": of_assistant("I "), "done": False},
        {"message": of_assistant("look."), "done": False, "logprobs": [entry]},
        {"message": of_assistant("", tool_calls=[first]), "done": False},
        {"message": of_assistant("", tool_calls=[second]), "done": False},
    ]
    assert last.pop("total_duration") > 1_000_000
    assert last == {
        "message": of_assistant(""),
        "done": True,
        "done_reason": "stop",
        "load_duration": 40,
        "prompt_eval_count": 10,
        "prompt_eval_duration": 250_000_000,
        "eval_count": 4,
        "eval_duration": 500_000_000,
    }


def test_a_whole_chat() -> None:
    whole = told(ROUND)[1].whole()
    assert whole["message"]["content"] == "I look."
    assert whole["message"]["thinking"] == "Hm."
    assert [call["function"]["name"] for call in whole["message"]["tool_calls"]] == ["look", "listen"]
    assert len(whole["logprobs"]) == 1
    assert (whole["done"], whole["eval_count"]) == (True, 4)


def test_generations_tell_their_context() -> None:
    answer = Answer("m", False, True, 0, context=[1, 2])
    answer.made((3,))
    answer.made(())
    answer.made((4, 5))
    lines = [line for delta in ROUND[:3] for line in answer.lines(delta)]
    assert [line["response"] for line in lines] == ["", "I ", "look."]
    assert lines[0]["thinking"] == "Hm."
    last = answer.lines(Ended(Ending.LENGTH, USAGE))[-1]
    assert (last["response"], last["done_reason"], last["context"]) == ("", "length", [1, 2, 3, 4, 5])
    assert answer.whole()["response"] == "I look."
    assert "context" not in told([Ended(Ending.STOP, USAGE)], talk=False)[0][-1]


def test_thoughts_that_nobody_wants_are_not_told() -> None:
    lines, answer = told(ROUND, thinking=False)
    assert "Hm." not in json.dumps([lines, answer.whole()])


def test_nothing_new_is_no_line() -> None:
    assert told([ContentDelta("")])[0] == []
    assert len(told([ContentDelta("", (LOGPROB,))])[0]) == 1


def test_calls_that_were_cut_short_are_left_out() -> None:
    deltas: list[Delta] = [ToolCallDelta(0, '{"at": ', "call_1", "look"), Ended(Ending.LENGTH, USAGE)]
    lines, answer = told(deltas)
    assert len(lines) == 1
    assert "tool_calls" not in answer.whole()["message"]


def test_a_failure_is_a_line() -> None:
    answer = Answer("m", True, True, 0)
    assert answer.lines(Ended(Ending.ERROR, USAGE, "out of memory")) == [{"error": "out of memory"}]
    with pytest.raises(EngineDeadError, match="out of memory"):
        answer.whole()


PIECES = st.lists(
    st.builds(ContentDelta, st.text(max_size=5)) | st.builds(ReasoningDelta, st.text(max_size=5)), max_size=9
)


@settings(max_examples=60, deadline=None)
@given(PIECES, st.booleans(), st.booleans())
def test_the_lines_add_up_to_the_answer(pieces: list[Delta], talk: bool, thinking: bool) -> None:
    lines, answer = told([*pieces, Ended(Ending.STOP, USAGE)], talk=talk, thinking=thinking)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    said = [line["message"] if talk else line for line in [*lines, answer.whole()]]
    name = "content" if talk else "response"
    assert "".join(one[name] for one in said[:-1]) == said[-1][name]
    assert "".join(one.get("thinking", "") for one in said[:-1]) == said[-1].get("thinking", "")


@pytest.mark.parametrize(
    ("finish", "ending"),
    [
        (FinishReason.EOS, Ending.STOP),
        (FinishReason.STOP, Ending.STOP),
        (FinishReason.LENGTH, Ending.LENGTH),
        (FinishReason.ABORT, Ending.LENGTH),
        (FinishReason.ERROR, Ending.ERROR),
    ],
)
def test_raw_replies_are_all_answer(finish: FinishReason, ending: Ending) -> None:
    reader = RawReader()
    assert reader.push(Event("id")) == []
    assert reader.push(Event("id", "<think>x", logprobs=(LOGPROB,))) == [ContentDelta("<think>x", (LOGPROB,))]
    last = Event("id", "y", finish=finish, usage=USAGE, error="e")
    assert reader.push(last) == [ContentDelta("y"), Ended(ending, USAGE, "e")]


INFO = ModelInfo(
    name="tiny",
    architecture="llama",
    quantization="Q4_1",
    parameters=134_515_008,
    context_length=2048,
    trained_context_length=8192,
    vocab_size=49152,
    chat_template="{% if tools %}{{ tools }}{% endif %}",
    bos_token="<s>",
    eos_token="</s>",
)


def test_the_model_is_listed_with_the_facts_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"x" * 123)
    file = ModelFile.look(path)
    entry = models.tags_reply(INFO, file)["models"][0]
    assert (entry["name"], entry["model"], entry["size"]) == ("tiny", "tiny", 123)
    assert abs(datetime.fromisoformat(entry["modified_at"]).timestamp() - path.stat().st_mtime) < 0.001
    assert entry["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "135M",
        "quantization_level": "Q4_1",
    }
    running = models.running_reply(INFO, file)["models"][0]
    assert running["digest"] == entry["digest"]
    assert running["context_length"] == 2048
    assert datetime.fromisoformat(running["expires_at"]).year == 9999
    path.write_bytes(b"y")
    os.utime(path, (file.modified.timestamp(), file.modified.timestamp()))
    assert models.tags_reply(INFO, ModelFile.look(path))["models"][0]["digest"] != entry["digest"]


@pytest.mark.parametrize("path", [None, Path("/nonexistent/x.gguf")])
def test_a_file_that_is_gone_has_no_size(path: Path | None) -> None:
    assert models.tags_reply(INFO, ModelFile.look(path))["models"][0]["size"] == 0


@pytest.mark.parametrize(
    ("count", "short"),
    [(999, "999"), (1500, "1.5K"), (134_515_008, "135M"), (8_030_261_248, "8.03B"), (999_999_999, "1000M")],
)
def test_sizes_are_short(count: int, short: str) -> None:
    assert models._short(count) == short


def test_all_about_the_model() -> None:
    shown = models.show_reply(INFO, ModelFile())
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["template"] == INFO.chat_template
    assert shown["model_info"]["llama.context_length"] == 8192
    assert shown["model_info"]["general.parameter_count"] == 134_515_008


@pytest.mark.parametrize(
    ("template", "thinks"),
    [(None, False), (CHATML, False), (CHATML + "{{ enable_thinking }}", True), (CHATML + "</think>", True)],
)
def test_what_the_model_can_do_here(template: str | None, thinks: bool) -> None:
    told = models.show_reply(replace(INFO, chat_template=template), ModelFile())["capabilities"]
    assert told == ["completion", "tools"] + ["thinking"] * thinks


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HttpError(422, "messages: wrong"), 400),
        (HttpError(500, "Error parsing input."), 400),
        (HttpError(401, "no", "unauthorized"), 401),
        (RequestError("no"), 400),
        (BusyError("later"), 503),
        (EngineDeadError("gone"), 500),
    ],
)
def test_errors(error: HttpError | NkatError, status: int) -> None:
    reply = error_reply(error)
    said = json.loads(bytes(reply.body))
    assert reply.status_code == status
    assert said["error"] == said["detail"]["msg"] == str(error)
