"""The only translator between the OpenAI wire and the engine's messages. Pure."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from engine.errors import RequestError
from engine.types import (
    FinishReason,
    GenerationRequest,
    Grammar,
    ModelInfo,
    Progress,
    Prompt,
    TextPrompt,
    TokenPrompt,
    Usage,
)
from server.chat.adapters import Adapter
from server.chat.call import ChatCall
from server.chat.placeholders import fill_placeholders
from server.dialects.openai.schemas import (
    CHAT_REFUSED,
    ChatBody,
    ChatMessage,
    CompletionBody,
    SharedBody,
)
from server.wire import generation_fields
from server.wire.names import model_name
from server.wire.parts import text_of_part, unknown_part
from server.wire.replies import HttpError
from server.wire.response_form import form_grammar, schema_grammar
from server.wire.tool_choice import read_choice
from server.wire.tools import INPUT, Offer, Tell

DEFAULT_LENGTH = 180
DEFAULT_CHAT_LENGTH = 400

ALTERNATIVES = 10
"""Tokens shown beside each chosen one to Kobold's clients, which ask for probabilities and say no number."""

FINISH = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "length",
}


def completion_requests(
    body: CompletionBody, request_id: str, default_length: int | None, adapter: Adapter
) -> list[GenerationRequest]:
    """One request for each prompt; `body.n` is for the caller. `adapter`: the tags of placeholders."""
    fallback = DEFAULT_LENGTH if default_length is None else default_length
    grammar = _grammar(body)
    requests = []
    for index, given in enumerate(body.prompt):
        stop = _stop(body)
        prompt: Prompt
        if not isinstance(given, str):
            prompt = TokenPrompt(given)
        elif body.replace_instruct_placeholders:
            filled = fill_placeholders(adapter, given, body.memory, stop)
            prompt, stop = TextPrompt(filled.prompt, filled.memory), filled.stop
        else:
            prompt = TextPrompt(given, body.memory)
        name = f"{request_id}-{index}"
        request = _request(body, name, prompt, fallback, stop, body.logprobs, grammar)
        requests.append(replace(request, prompt_logprobs=body.echo and body.logprobs is not None))
    return requests


def chat_request(body: ChatBody, request_id: str, default_length: int | None) -> GenerationRequest:
    """The request for the next message, but for its prompt and grammar, which are made of `chat_call`."""
    fallback = DEFAULT_CHAT_LENGTH if default_length is None else default_length
    return _request(body, request_id, TextPrompt(""), fallback, _stop(body), _alternatives(body))


def chat_call(body: ChatBody, offer: Offer, tell: Tell) -> ChatCall:
    """What is asked of the chat. `offer`: the body's tools; `tell` hears of a choice without effect.

    Raises `RequestError`, also for fields without which the reply would answer another question.
    """
    if body.functions and not body.tools:
        raise RequestError(f"functions: {CHAT_REFUSED['functions']}")
    if body.modalities not in (None, [], ["text"]):
        raise RequestError(f"modalities: {CHAT_REFUSED['modalities']}")
    choice = read_choice(body.tool_choice, offer, tell)
    return ChatCall(
        messages=tuple(_message(message, index) for index, message in enumerate(body.messages)),
        tools=offer.tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        grammar=_grammar(body),
        continue_last=body.continue_assistant_turn,
        template_args=body.chat_template_kwargs,
        adapter=body.adapter,
        memory=body.memory,
        split_reasoning=body.encapsulate_thinking,
        reasoning_effort=body.reasoning_effort,
        thinking_budget=body.thinking_budget_tokens if body.thinking_budget_tokens >= 0 else None,
        special=body.special_in_messages,
    )


def _grammar(body: SharedBody) -> Grammar | None:
    found = form_grammar(body.response_format)
    if found is None:
        found = schema_grammar(body.json_schema)
    return generation_fields.to_grammar(body.grammar) if found is None else found


def _request(
    body: SharedBody,
    request_id: str,
    prompt: Prompt,
    fallback: int,
    stop: tuple[str, ...],
    logprobs: int | None,
    grammar: Grammar | None = None,
) -> GenerationRequest:
    fields = body
    if body.mirostat_mode is not None:
        fields = body.model_copy(update={"mirostat": body.mirostat_mode})
    request = generation_fields.to_request(
        fields,
        request_id,
        prompt,
        max_tokens=_length(body, fallback),
        stop=stop,
        seed=body.seed,
        logprobs=logprobs,
        grammar=grammar,
    )
    return replace(request, report_progress=body.return_progress and body.stream)


def _alternatives(body: ChatBody) -> int | None:
    """How many are reported with each token, if probabilities are wanted. A genkey tells Kobold's clients."""
    if not body.logprobs:
        return None
    if body.top_logprobs is None:
        return ALTERNATIVES if body.genkey else 0
    return body.top_logprobs


def _stop(body: SharedBody) -> tuple[str, ...]:
    return body.stop_sequence if body.stop is None else body.stop


def _length(body: SharedBody, fallback: int) -> int:
    """The first name that was used; numbers below -2 say nothing."""
    length = generation_fields.said_length(body, body.max_tokens, body.max_completion_tokens)
    return fallback if length is None or length < 0 else length


def _message(message: ChatMessage, index: int) -> dict[str, Any]:
    """A message as templates know it: text content, and `system` for OpenAI's newer `developer`."""
    place = f"messages.{index}.content"
    content = message.content
    if not isinstance(content, str):
        content = "".join(_text_of(part, f"{place}.{number}") for number, part in enumerate(content))
    role = "system" if message.role == "developer" else message.role
    extra = message.model_extra or {}
    said = {**extra, "role": role, "content": content}
    if isinstance(thoughts := extra.get("reasoning"), str):
        said.setdefault("reasoning_content", thoughts)
    return said | {"tool_calls": [_call(call) for call in message.tool_calls]} if message.tool_calls else said


def _text_of(part: dict[str, Any] | str, place: str) -> str:
    if isinstance(part, str):
        return part
    text = text_of_part({"type": "text"} | part if "text" in part else part, place)
    if text is None:
        raise unknown_part(part, place)
    return text


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A call of an earlier message; one of a custom tool as that of the function that stands for it."""
    custom = call.get("custom")
    if call.get("type") != "custom" or not isinstance(custom, dict):
        return call
    arguments = json.dumps({INPUT: custom.get("input")}, ensure_ascii=False)
    function = {"name": custom.get("name"), "arguments": arguments}
    return {**call, "type": "function", "function": function}


def usage_reply(usages: Iterable[Usage], choices: int) -> dict[str, Any]:
    """The costs of all generations of a call; each prompt counts once, however many choices it has."""
    listed = list(usages)
    prompt = sum(usage.prompt_tokens for usage in listed[::choices])
    made = sum(usage.completion_tokens for usage in listed)
    details = {"cached_tokens": sum(usage.cached_tokens for usage in listed[::choices])}
    if left_out := sum(usage.left_out_tokens for usage in listed[::choices]):
        details["left_out_tokens"] = left_out
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": details,
    }


def progress_reply(progress: Progress) -> dict[str, Any]:
    """How far a prompt is read, in llama.cpp's words."""
    return {
        "total": progress.total,
        "cache": progress.cached,
        "processed": progress.read,
        "time_ms": round(progress.seconds * 1000),
    }


def models_reply(info: ModelInfo, created: int, *, anthropic: bool) -> dict[str, Any]:
    """The answer of `/v1/models`; `anthropic`: with what Anthropic's clients read of it."""
    name = model_name(info)
    if not anthropic:
        return {"object": "list", "data": [_model(name, created)]}
    page = {"first_id": name, "last_id": name, "has_more": False}
    return {"object": "list", "data": [_both(name, created)]} | page


def model_reply(info: ModelInfo, created: int, asked: str) -> dict[str, Any]:
    """The answer of `/v1/models/{id}`, for OpenAI's and Anthropic's clients. Raises `HttpError`."""
    name = model_name(info)
    if asked not in (name, info.name):
        raise HttpError(404, f"there is no model {asked[:80]!r}; the loaded one is {name!r}", "not_found")
    return _both(name, created)


def _model(name: str, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "koboldcpp",
        "permission": [],
        "root": "koboldcpp",
        "status": {"value": "loaded"},
    }


def _both(name: str, created: int) -> dict[str, Any]:
    moment = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    return _model(name, created) | {"type": "model", "display_name": name, "created_at": moment}
