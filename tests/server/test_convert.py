"""The translators: every field is mapped, or listed with the reason why not."""

from typing import Any

import pytest

from engine.types import ChatPrompt, Event, FinishReason, TextPrompt, TokenPrompt, Usage
from server.dialects.kobold import convert as kobold
from server.dialects.kobold import schemas as kobold_schemas
from server.dialects.kobold.schemas import GenerateBody
from server.dialects.openai import convert as openai
from server.dialects.openai import schemas as openai_schemas
from server.dialects.openai.answer import Answer
from server.dialects.openai.schemas import ChatBody, CompletionBody
from server.service import Reply, Status, numbered

SAMPLER_CHANGES: dict[str, Any] = {
    "temperature": 0, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "rep_pen": 1.2, "repetition_penalty": 1.2,
    "repeat_penalty": 1.2, "rep_pen_range": 5, "rep_pen_slope": 0.5, "presence_penalty": 1,
    "frequency_penalty": 1, "sampler_order": [0], "sampler_seed": 3, "logit_bias": {"1": 1},
    "custom_token_bans": "4",
}  # fmt: skip
SHARED_CHANGES: dict[str, Any] = SAMPLER_CHANGES | {
    "max_context_length": 99, "max_length": 5, "stop_sequence": ["x"], "trim_stop": False,
    "ban_eos_token": True, "use_default_badwordsids": True, "bypass_eos": True, "render_special": True,
}  # fmt: skip
KOBOLD_CHANGES = SHARED_CHANGES | {"prompt": "x", "memory": "x"}
OPENAI_CHANGES = SHARED_CHANGES | {
    "max_tokens": 5, "max_completion_tokens": 5, "stop": "x", "seed": 4
}  # fmt: skip
COMPLETION_CHANGES = OPENAI_CHANGES | {"prompt": "x", "memory": "x"}
CHAT_CHANGES = OPENAI_CHANGES | {
    "messages": [{"role": "user", "content": "other"}],
    "continue_assistant_turn": False,
    "chat_template_kwargs": {"x": 1},
}
READ_BY_ROUTES = {"genkey", "n", "stream", "stream_options", "echo"}
"""Fields that say how to answer, not what to generate; the live tests show them at work."""

HELLO = [{"role": "user", "content": "hello"}]


def kobold_request(**fields: Any) -> Any:
    return kobold.to_request(GenerateBody.model_validate(fields), "id", None)


def completion_request(**fields: Any) -> Any:
    return openai.completion_requests(CompletionBody.model_validate(fields), "id", None)


def chat_request(**fields: Any) -> Any:
    return openai.chat_request(ChatBody.model_validate({"messages": HELLO} | fields), "id", None)


@pytest.mark.parametrize(
    ("model", "changes", "convert"),
    [
        (GenerateBody, KOBOLD_CHANGES, kobold_request),
        (CompletionBody, COMPLETION_CHANGES, completion_request),
        (ChatBody, CHAT_CHANGES, chat_request),
    ],
)
def test_mapped_fields_change_the_request(model: Any, changes: dict[str, Any], convert: Any) -> None:
    for name, value in changes.items():
        assert convert(**{name: value}) != convert(), name


@pytest.mark.parametrize(
    ("model", "mapped", "not_yet", "ignored"),
    [
        (GenerateBody, KOBOLD_CHANGES, kobold_schemas.NOT_YET, kobold_schemas.IGNORED),
        (
            CompletionBody,
            COMPLETION_CHANGES,
            openai_schemas.COMPLETION_NOT_YET,
            openai_schemas.COMPLETION_IGNORED,
        ),
        (ChatBody, CHAT_CHANGES, openai_schemas.CHAT_NOT_YET, openai_schemas.CHAT_IGNORED),
    ],
)
def test_every_field_is_mapped_or_listed(model: Any, mapped: Any, not_yet: Any, ignored: Any) -> None:
    read = (READ_BY_ROUTES & model.model_fields.keys()) - not_yet.keys()
    lists = [set(mapped), set(not_yet), set(ignored), read]
    assert set().union(*lists) == set(model.model_fields)
    assert sum(map(len, lists)) == len(model.model_fields), "no field is in two lists"
    assert all(ignored.values())


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ({}, "max_tokens", 180),
        ({"max_length": 0}, "max_tokens", 0),
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
    assert kobold.to_request(GenerateBody(), "id", 33).max_tokens == 33
    assert openai.completion_requests(CompletionBody(), "id", 33)[0].max_tokens == 33


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
    whole = frame(chat=False).whole([reply])
    assert whole["choices"][0]["finish_reason"] == word
    assert whole["usage"]["total_tokens"] == 5


def test_kobold_pieces() -> None:
    assert kobold.from_event(Event("id")) is None
    assert kobold.from_event(Event("id", "x")) == {"token": "x", "finish_reason": None}
    failed = kobold.from_event(Event("id", finish=FinishReason.ERROR, error="oh"))
    assert failed == {"token": "", "finish_reason": "error"}


def test_perf_has_no_division_by_zero() -> None:
    for usage in (None, Usage(5, 0, cached_tokens=5), Usage(5, 1), Usage(5, 3, 0, 0.5, 0.2, 7)):
        status = Status(usage, FinishReason.EOS, 1, 0, 0, 1.0, 1.0)
        perf = kobold.perf_reply(status, quiet=False)
        assert perf["idle"] == 1
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
        ({"max_tokens": -1}, 400),
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


def test_messages_become_what_templates_know() -> None:
    messages = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, "b"], "name": "N"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ]
    prompt = chat_request(messages=messages, chat_template_kwargs={"think": False}).prompt
    assert prompt == ChatPrompt(
        messages=(
            {"role": "system", "content": "d"},
            {"role": "user", "content": "ab", "name": "N"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
        ),
        template_args={"think": False},
    )


def test_choices_differ_in_id_and_seed() -> None:
    first, second = numbered(chat_request(seed=5), 2)
    assert (first.sampling.seed, second.sampling.seed) == (5, 6)
    assert first.request_id != second.request_id
    assert numbered(chat_request(), 2)[1].sampling.seed is None


def frame(**fields: Any) -> Answer:
    usual: dict[str, Any] = {"chat": True, "indexes": {"a": 0, "b": 1}, "choices": 2}
    return Answer("x", "m", 1, **(usual | fields))


def test_prompts_cost_once_for_all_choices() -> None:
    replies = [Reply("t", FinishReason.EOS, Usage(10, 2)), Reply("u", FinishReason.EOS, Usage(10, 3))]
    assert frame().whole(replies)["usage"]["prompt_tokens"] == 10
    assert frame().whole(replies)["usage"]["completion_tokens"] == 5


def test_chat_chunks() -> None:
    answer = frame(include_usage=True)
    opening = answer.opening()
    assert [chunk["choices"][0]["index"] for chunk in opening] == [0, 1]
    assert opening[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text, end = answer.chunks(Event("b", "hi", finish=FinishReason.EOS, usage=Usage(1, 2)))
    assert text["choices"][0]["delta"] == {"content": "hi"}
    assert text["choices"][0]["finish_reason"] is None
    assert end["choices"][0] == {"index": 1, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    answer.chunks(Event("a", finish=FinishReason.EOS, usage=Usage(1, 3)))
    (costs,) = answer.closing()
    assert costs["choices"] == []
    assert costs["usage"]["total_tokens"] == 6


def test_an_error_is_told_in_the_stream() -> None:
    (chunk,) = frame().chunks(Event("a", finish=FinishReason.ERROR, error="oh"))
    assert chunk["error"]["message"] == "oh"


def test_echo() -> None:
    answer = frame(chat=False, echoes=("P", "Q"))
    assert [chunk["choices"][0]["text"] for chunk in answer.opening()] == ["P", "Q"]
    assert answer.whole([Reply("x", FinishReason.EOS, Usage(1, 1))])["choices"][0]["text"] == "Px"
