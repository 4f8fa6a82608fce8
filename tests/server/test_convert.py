"""The translators: every field is mapped, or listed with the reason why not."""

from typing import Any

import pytest
from pydantic import ValidationError

from engine.errors import RequestError
from engine.types import (
    UNTIL_END,
    Event,
    FinishReason,
    GbnfGrammar,
    JsonGrammar,
    TextPrompt,
    ThinkingBudget,
    TokenLogprob,
    TokenPrompt,
    Usage,
)
from server.chat.adapters import Adapter
from server.chat.call import Tool, ToolChoice, ToolMode
from server.chat.message import ContentDelta, Ended, Ending, Message, ReasoningDelta, ToolCall, ToolCallDelta
from server.chat.reasoning import family_of
from server.dialects.kobold import convert as kobold
from server.dialects.kobold import schemas as kobold_schemas
from server.dialects.kobold.schemas import GenerateBody
from server.dialects.openai import convert as openai
from server.dialects.openai import schemas as openai_schemas
from server.dialects.openai.answer import CompletionAnswer, Head
from server.dialects.openai.chat_answer import ChatAnswer
from server.dialects.openai.schemas import ChatBody, CompletionBody
from server.service import Reply, Status, numbered
from server.wire.tools import read_tools
from tests.server.dialects.fields import untold

SAMPLER_CHANGES: dict[str, Any] = {
    "temperature": 0, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "top_a": 0.1, "typical": 0.5, "tfs": 0.5,
    "nsigma": 1, "rep_pen": 1.2, "repetition_penalty": 1.2, "repeat_penalty": 1.2, "rep_pen_range": 5,
    "rep_pen_slope": 0.5, "presence_penalty": 1, "frequency_penalty": 1, "mirostat": 2, "mirostat_tau": 3,
    "mirostat_eta": 0.2, "dynatemp_range": 0.2, "dynatemp_exponent": 2, "smoothing_factor": 0.2,
    "smoothing_curve": 2, "dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3,
    "dry_penalty_last_n": 5, "dry_sequence_breakers": ["x"], "xtc_threshold": 0.3, "xtc_probability": 0.5,
    "adaptive_target": 0.5, "adaptive_decay": 0.5, "sampler_order": [0], "sampler_seed": 3,
    "logit_bias": {"1": 1}, "custom_token_bans": "4",
}  # fmt: skip
SHARED_CHANGES: dict[str, Any] = SAMPLER_CHANGES | {
    "max_context_length": 99, "max_length": 5, "n_predict": 5, "stop_sequence": ["x"], "trim_stop": False,
    "ban_eos_token": True, "use_default_badwordsids": True, "bypass_eos": True, "render_special": True,
    "grammar": 'root ::= "x"', "banned_tokens": ["x"], "banned_strings": ["x"], "theta": False,
    "truncation": "disabled",
}  # fmt: skip
KOBOLD_CHANGES = SHARED_CHANGES | {
    "prompt": "x", "memory": "x", "logprobs": True, "reasoning_effort": "low", "thinking_budget_tokens": 3
}  # fmt: skip
OPENAI_CHANGES = SHARED_CHANGES | {
    "max_tokens": 5, "max_completion_tokens": 5, "stop": "x", "seed": 4, "mirostat_mode": 1,
    "response_format": {"type": "json_object"}, "json_schema": {"type": "string"},
}  # fmt: skip
COMPLETION_CHANGES = OPENAI_CHANGES | {"prompt": "x", "memory": "x", "logprobs": 2}
CALL_CHANGES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "other"}], "continue_assistant_turn": False, "memory": "x",
    "chat_template_kwargs": {"x": 1}, "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "none", "parallel_tool_calls": False, "reasoning_effort": "low",
    "thinking_budget_tokens": 3, "encapsulate_thinking": False, "adapter": {"user_start": "x"},
    "special_in_messages": True,
}  # fmt: skip
CHAT_CHANGES = OPENAI_CHANGES | CALL_CHANGES | {"logprobs": True}
READ_BY_ROUTES = {"genkey", "n", "stream", "stream_options", "echo", "top_logprobs", "return_progress"}
"""Fields that say how to answer, not what to generate; the live tests show them at work."""
WITH_PLACEHOLDERS = {"replace_instruct_placeholders"}
"""Seen only where the texts hold placeholders."""

HELLO = [{"role": "user", "content": "hello"}]


def kobold_request(default_length: int | None = None, **fields: Any) -> Any:
    body = GenerateBody.model_validate(fields)
    return kobold.to_request(body, "id", default_length, Adapter(), family_of(None))


def completion_request(default_length: int | None = None, **fields: Any) -> Any:
    body = CompletionBody.model_validate(fields)
    return openai.completion_requests(body, "id", default_length, Adapter())


def chat_request(**fields: Any) -> Any:
    return openai.chat_request(ChatBody.model_validate({"messages": HELLO} | fields), "id", None)


def chat_call(**fields: Any) -> Any:
    body = ChatBody.model_validate({"messages": HELLO} | fields)
    return openai.chat_call(body, read_tools(body.tools, untold), untold)


def chat(**fields: Any) -> Any:
    return chat_request(**fields), chat_call(**fields)


@pytest.mark.parametrize(
    ("model", "changes", "convert"),
    [
        (GenerateBody, KOBOLD_CHANGES, kobold_request),
        (CompletionBody, COMPLETION_CHANGES, completion_request),
        (ChatBody, CHAT_CHANGES, chat),
    ],
)
def test_mapped_fields_change_the_request(model: Any, changes: dict[str, Any], convert: Any) -> None:
    for name, value in changes.items():
        assert convert(**{name: value}) != convert(), name


@pytest.mark.parametrize(
    ("model", "mapped", "not_yet", "ignored"),
    [
        (
            GenerateBody,
            KOBOLD_CHANGES,
            kobold_schemas.NOT_YET | kobold_schemas.LEFT_OUT,
            kobold_schemas.IGNORED,
        ),
        (
            CompletionBody,
            COMPLETION_CHANGES,
            openai_schemas.COMPLETION_NOT_YET | openai_schemas.COMPLETION_LEFT_OUT,
            openai_schemas.COMPLETION_IGNORED,
        ),
        (
            ChatBody,
            CHAT_CHANGES,
            openai_schemas.CHAT_NOT_YET | openai_schemas.CHAT_LEFT_OUT,
            openai_schemas.CHAT_IGNORED | openai_schemas.CHAT_REFUSED,
        ),
    ],
)
def test_every_field_is_mapped_or_listed(model: Any, mapped: Any, not_yet: Any, ignored: Any) -> None:
    read = (READ_BY_ROUTES | WITH_PLACEHOLDERS) & model.model_fields.keys() - not_yet.keys() - ignored.keys()
    lists = [set(mapped), set(not_yet), set(ignored), read]
    assert set().union(*lists) == set(model.model_fields)
    assert sum(map(len, lists)) == len(model.model_fields), "no field is in two lists"
    assert all(ignored.values())


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ({}, "max_tokens", 180),
        ({"max_length": 0}, "max_tokens", 0),
        ({"n_predict": 3}, "max_tokens", 3),
        ({"max_length": -1}, "max_tokens", UNTIL_END),
        ({"n_predict": -1}, "max_tokens", UNTIL_END),
        ({"max_length": -5}, "max_tokens", -5),
        ({"max_context_length": 0}, "context_length", None),
        ({"ban_eos_token": False, "use_default_badwordsids": True}, "ban_eos", False),
        ({"ban_eos_token": True, "bypass_eos": True}, "ban_eos", False),
        ({"stop_sequence": [str(n) for n in range(300)]}, "stop", tuple(str(n) for n in range(256))),
        ({"prompt": "p", "memory": "m"}, "prompt", TextPrompt("p", "m")),
    ],
)
def test_kobold_requests(fields: dict[str, Any], attribute: str, expected: Any) -> None:
    assert getattr(kobold_request(**fields), attribute) == expected


def test_the_server_may_set_the_usual_length() -> None:
    assert kobold_request(33).max_tokens == 33
    assert completion_request(33)[0].max_tokens == 33


@pytest.mark.parametrize(
    ("finish", "word"),
    [
        (FinishReason.EOS, "stop"),
        (FinishReason.STOP, "stop"),
        (FinishReason.LENGTH, "length"),
        (FinishReason.ABORT, "length"),
    ],
)
def test_words_for_the_end(finish: FinishReason, word: str) -> None:
    reply = Reply("text", finish, Usage(3, 2))
    assert kobold.from_reply(reply)["results"][0]["finish_reason"] == word
    assert kobold.from_event(Event("id", "x", finish=finish)) == {"token": "x", "finish_reason": word}
    whole = CompletionAnswer(HEAD, {"a": 0}).whole([reply])
    assert whole["choices"][0]["finish_reason"] == word
    assert whole["usage"]["total_tokens"] == 5


def test_kobold_pieces() -> None:
    assert kobold.from_event(Event("id")) is None
    assert kobold.from_event(Event("id", "x")) == {"token": "x", "finish_reason": None}
    failed = kobold.from_event(Event("id", finish=FinishReason.ERROR, error="oh"))
    assert failed == {"token": "", "finish_reason": "error"}


def test_perf_has_no_division_by_zero() -> None:
    for usage in (None, Usage(5, 0, cached_tokens=5), Usage(5, 1), Usage(8, 3, 3, 0.5, 0.2, 7)):
        status = Status(usage, FinishReason.EOS, 7, 5, 1, 0, 0, 1.0, 1.0)
        perf = kobold.perf_reply(status, quiet=False)
        assert perf["idle"] == 1
        assert (perf["last_draft_success"], perf["last_draft_failed"]) == (5, 2)
    assert perf["last_process"] == pytest.approx(100.0)
    assert perf["last_eval"] == pytest.approx(100.0)
    assert perf["stop_reason"] == 1
    assert perf["last_seed"] == 7


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [TextPrompt("a")]),
        (["a", "b"], [TextPrompt("a"), TextPrompt("b")]),
        ([1, 2], [TokenPrompt((1, 2))]),
        ([[1, 2], [3]], [TokenPrompt((1, 2)), TokenPrompt((3,))]),
        (None, [TextPrompt("")]),
    ],
)
def test_forms_of_prompts(prompt: Any, expected: list[Any]) -> None:
    assert [one.prompt for one in completion_request(prompt=prompt)] == expected


@pytest.mark.parametrize("prompt", [[], [1, "a", 2.5], 5, {}, [[1.5]], [[-1]], ["a"] * 17, [True]])
def test_bad_prompts(prompt: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        CompletionBody.model_validate({"prompt": prompt})


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({}, 400),
        ({"max_length": 5}, 5),
        ({"max_tokens": 6, "max_length": 5}, 6),
        ({"max_completion_tokens": 7}, 7),
        ({"n_predict": 8}, 8),
        ({"max_length": 5, "n_predict": 8}, 5),
        ({"max_tokens": -1}, UNTIL_END),
        ({"max_completion_tokens": -1}, UNTIL_END),
        ({"max_length": -1}, UNTIL_END),
        ({"n_predict": -2}, UNTIL_END),
        ({"max_tokens": -5}, 400),
        ({"max_tokens": 0}, 0),
    ],
)
def test_names_of_the_length(fields: dict[str, Any], length: int) -> None:
    assert chat_request(**fields).max_tokens == length


def test_openai_names_come_first() -> None:
    request = chat_request(stop=["a"], stop_sequence=["b"], seed=1, sampler_seed=2)
    assert request.stop == ("a",)
    assert request.sampling.seed == 1
    request = chat_request(stop_sequence=["b"], sampler_seed="2")
    assert (request.stop, request.sampling.seed) == (("b",), 2)


def test_placeholders_become_tags() -> None:
    fields: dict[str, Any] = {"prompt": "{{[INPUT]}}hi{{[OUTPUT]}}", "stop_sequence": ["{{[INPUT]}}", "x"]}
    filled = kobold_request(**fields)
    assert filled.prompt == TextPrompt("\n### Instruction:\nhi\n### Response:\n")
    assert filled.stop == ("### Instruction:", "x")
    kept = kobold_request(**fields, replace_instruct_placeholders=False)
    assert kept.prompt == TextPrompt("{{[INPUT]}}hi{{[OUTPUT]}}")
    fields["prompt"] = [fields["prompt"], [1, 2]]
    texts, tokens = completion_request(**fields)
    assert (texts.prompt, texts.stop) == (filled.prompt, filled.stop)
    assert tokens.prompt == TokenPrompt((1, 2))
    kept, _ = completion_request(**fields, replace_instruct_placeholders=False)
    assert kept.stop == ("{{[INPUT]}}", "x")


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, 0),
        ({"reasoning_effort": "LOW", "max_length": 40}, 10),
        ({"reasoning_effort": "high"}, None),
        ({"thinking_budget_tokens": 7}, 7),
        ({"thinking_budget_tokens": 7, "reasoning_effort": "medium", "max_length": 40}, 20),
    ],
)
def test_budgets_of_thoughts(fields: dict[str, Any], budget: int | None) -> None:
    thinking = kobold_request(**fields).thinking
    assert (None if thinking is None else thinking.tokens) == budget
    assert thinking is None or thinking == ThinkingBudget(thinking.tokens)


def test_thoughts_get_a_share_of_the_context_where_the_reply_may_fill_it() -> None:
    body = GenerateBody.model_validate({"reasoning_effort": "low", "max_length": -1})
    thinking = kobold.to_request(body, "id", None, Adapter(), family_of(None), 400).thinking
    assert thinking is not None
    assert thinking.tokens == 100


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({"grammar": " "}, None),
        ({"grammar": "root ::= x"}, GbnfGrammar("root ::= x")),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonGrammar('{"type": "object"}')),
        ({"response_format": {"type": "json_object", "schema": {"a": 1}}}, JsonGrammar('{"a": 1}')),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
            JsonGrammar("{}"),
        ),
        ({"json_schema": {"a": 1}, "grammar": "root ::= x"}, JsonGrammar('{"a": 1}')),
        ({"response_format": {"type": "json_schema", "schema": {"a": 1}}}, JsonGrammar('{"a": 1}')),
        ({"response_format": {"type": "json_schema", "schema": {}}}, JsonGrammar("{}")),
        ({"response_format": {"type": "json", "value": {"a": 1}}}, JsonGrammar('{"a": 1}')),
        ({"response_format": {"type": "json_object", "value": {"a": 1}}}, JsonGrammar('{"a": 1}')),
        ({"response_format": {"type": "json_object", "schema": {}}}, JsonGrammar('{"type": "object"}')),
        ({"response_format": {"type": "json_object", "schema": None}}, JsonGrammar('{"type": "object"}')),
        (
            {"response_format": {"type": "json_object", "json_schema": {"schema": {"a": 1}}}},
            JsonGrammar('{"a": 1}'),
        ),
        ({"json_schema": {}}, None),
        ({"json_schema": ""}, None),
        ({"json_schema": False}, None),
        ({"json_schema": {}, "grammar": "root ::= x"}, GbnfGrammar("root ::= x")),
        ({"json_schema": '{"a": 1}'}, JsonGrammar('{"a": 1}')),
        ({"json_schema": {"a": 1}, "response_format": {"type": "text"}}, JsonGrammar('{"a": 1}')),
    ],
)
def test_grammars(fields: dict[str, Any], grammar: Any) -> None:
    assert chat_call(**fields).grammar == grammar
    assert completion_request(**fields)[0].grammar == grammar


@pytest.mark.parametrize("schema", ["{", "[]", "5", 5, ["x"], True])
def test_bad_schemas(schema: Any) -> None:
    with pytest.raises(ValidationError):
        CompletionBody.model_validate({"json_schema": schema})


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"type": "xml"},
        {"type": ["json_object"]},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {}},
        {"type": "json_schema", "schema": "x"},
        {"type": "json_object", "schema": ["x"]},
    ],
)
def test_bad_response_formats(form: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="response_format"):
        chat_call(response_format=form)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice(ToolMode.NONE)),
        ("required", ToolChoice(ToolMode.REQUIRED)),
        ("any", ToolChoice(ToolMode.REQUIRED)),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice(ToolMode.REQUIRED, "f")),
    ],
)
def test_tool_choices(sent: Any, meant: ToolChoice) -> None:
    assert chat_call(tool_choice=sent).tool_choice == meant


@pytest.mark.parametrize("sent", ["f", {}, {"function": {}}, {"function": {"name": 5}}])
def test_bad_tool_choices(sent: Any) -> None:
    with pytest.raises(RequestError, match="tool_choice"):
        chat_call(tool_choice=sent)


def test_tools() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}}
    function = {"name": "f", "description": "d", "parameters": parameters}
    assert chat_call(tools=[{"type": "function", "function": function}]).tools == (
        Tool("f", "d", parameters),
    )


def test_messages_become_what_templates_know() -> None:
    messages = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "c"}, "b"], "name": "N"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ]
    assert chat_call(messages=messages).messages == (
        {"role": "system", "content": "d"},
        {"role": "user", "content": "acb", "name": "N"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
    )


def test_choices_differ_in_id_and_seed() -> None:
    first, second = numbered(chat_request(seed=5), 2)
    assert (first.sampling.seed, second.sampling.seed) == (5, 6)
    assert first.request_id != second.request_id
    assert numbered(chat_request(), 2)[1].sampling.seed is None


HEAD = Head("x", "m", 1)
COSTS = Usage(10, 2)
TOLD = TokenLogprob(7, b"hi", -0.5, (TokenLogprob(7, b"hi", -0.5), TokenLogprob(8, b"\xc3", -1.5)))


def test_prompts_cost_once_for_all_choices() -> None:
    replies = [Reply("t", FinishReason.EOS, COSTS), Reply("u", FinishReason.EOS, Usage(10, 3))]
    answer = CompletionAnswer(Head("x", "m", 1, choices=2), {"a": 0, "b": 1})
    assert answer.whole(replies)["usage"]["prompt_tokens"] == 10
    assert answer.whole(replies)["usage"]["completion_tokens"] == 5


def test_completion_chunks() -> None:
    answer = CompletionAnswer(Head("x", "m", 1, include_usage=True), {"a": 0}, ("P",), logprobs=True)
    assert [chunk["choices"][0]["text"] for chunk in answer.opening()] == ["P"]
    text, end = answer.chunks(Event("a", "hi", logprobs=(TOLD,), finish=FinishReason.EOS, usage=COSTS))
    assert text["choices"][0]["logprobs"] == {
        "tokens": ["hi"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"hi": -0.5, "\ufffd": -1.5}],
        "text_offset": [1],
    }
    assert end["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
    (costs,) = answer.closing()
    assert (costs["choices"], costs["usage"]["total_tokens"]) == ([], 12)


def test_chat_chunks() -> None:
    answer = ChatAnswer(Head("x", "m", 1, choices=2, include_usage=True), logprobs=True)
    opening = answer.opening()
    assert [chunk["choices"][0]["index"] for chunk in opening] == [0, 1]
    assert opening[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}

    def choice(delta: Any) -> Any:
        (chunk,) = answer.chunks(1, delta)
        return chunk["choices"][0]

    said = choice(ContentDelta("hi", (TOLD,)))
    assert (said["delta"], said["finish_reason"]) == ({"content": "hi"}, None)
    (entry,) = said["logprobs"]["content"]
    assert (entry["token"], entry["bytes"], len(entry["top_logprobs"])) == ("hi", [104, 105], 2)
    assert choice(ReasoningDelta("so"))["delta"] == {"reasoning_content": "so"}
    assert choice(ToolCallDelta(0, id="c", name="f"))["delta"] == {
        "tool_calls": [
            {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
        ]
    }
    assert choice(ToolCallDelta(0, "{}"))["delta"] == {
        "tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]
    }
    assert choice(Ended(Ending.TOOL_CALLS, COSTS)) == {
        "index": 1, "delta": {}, "logprobs": None, "finish_reason": "tool_calls",
    }  # fmt: skip
    answer.chunks(0, Ended(Ending.STOP, Usage(10, 3)))
    (costs,) = answer.closing()
    assert (costs["choices"], costs["usage"]["total_tokens"]) == ([], 15)


def test_whole_chats() -> None:
    calls = (ToolCall("c", "f", '{"x": 1}'),)
    message = Message("", "hm", calls, Ending.TOOL_CALLS, COSTS, (TOLD,))
    (choice,) = ChatAnswer(HEAD).whole([message])["choices"]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
            ],
            "reasoning_content": "hm",
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    plain = ChatAnswer(HEAD, logprobs=True).whole([Message("a", "", (), Ending.STOP, COSTS, (TOLD,))])
    assert plain["choices"][0]["message"] == {"role": "assistant", "content": "a", "tool_calls": []}
    assert plain["choices"][0]["logprobs"]["content"][0]["token_id"] == 7


def test_an_error_is_told_in_the_stream() -> None:
    (chunk,) = CompletionAnswer(HEAD, {"a": 0}).chunks(Event("a", finish=FinishReason.ERROR, error="oh"))
    assert chunk["error"]["message"] == "oh"
    (chunk,) = ChatAnswer(HEAD).chunks(0, Ended(Ending.ERROR, COSTS, "oh"))
    assert chunk["error"]["message"] == "oh"


def test_echo() -> None:
    answer = CompletionAnswer(HEAD, {"a": 0, "b": 1}, ("P", "Q"))
    assert [chunk["choices"][0]["text"] for chunk in answer.opening()] == ["P", "Q"]
    assert answer.whole([Reply("x", FinishReason.EOS, Usage(1, 1))])["choices"][0]["text"] == "Px"
