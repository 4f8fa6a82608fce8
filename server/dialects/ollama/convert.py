"""The only translator between the Ollama wire and the server's messages. Pure."""

import json
import re
from dataclasses import replace
from typing import Any

from engine.errors import RequestError
from engine.types import UNTIL_END, GenerationRequest, JsonGrammar, TextPrompt
from server.chat.call import ChatCall
from server.dialects.ollama.schemas import (
    MessageBody,
    OllamaChatBody,
    OllamaGenerateBody,
    Options,
    SharedBody,
)
from server.wire.generation_fields import said_length, to_request
from server.wire.lenient import COUNT_LIMIT
from server.wire.tools import Tell, read_tools

DEFAULT_LENGTH = 400
UNSEEN = "images: no model that sees is loaded"


def chat_call(body: OllamaChatBody, tell: Tell) -> ChatCall:
    """The turn that is asked for. `tell` hears of tools that are skipped.

    Raises `RequestError` for what the model cannot do.
    """
    return ChatCall(
        messages=_messages(body.messages),
        tools=read_tools(body.tools, tell).tools,
        grammar=_grammar(body.format),
        reasoning_effort=_effort(body),
    )


def generate_call(body: OllamaGenerateBody) -> ChatCall:
    """A prompt as the turn of a user. Raises `RequestError` for what the model cannot do."""
    _check(body)
    system = [{"role": "system", "content": body.system}] if body.system else []
    return ChatCall(
        messages=(*system, {"role": "user", "content": body.prompt}),
        grammar=_grammar(body.format),
        reasoning_effort=_effort(body),
    )


def raw_request(body: OllamaGenerateBody, request_id: str, default_length: int | None) -> GenerationRequest:
    """The request that continues the prompt as it is. Raises `RequestError` for what that excludes."""
    _check(body)
    if body.system or body.context:
        raise RequestError("raw: a raw prompt has no system and no context; write them into the prompt")
    return _request(body, request_id, body.prompt, default_length, _grammar(body.format))


def base_request(body: SharedBody, request_id: str, default_length: int | None) -> GenerationRequest:
    """The request without its prompt, which is planned. `default_length` is the server's setting."""
    return _request(body, request_id, "", default_length, None)


def prompt_text(planned: GenerationRequest, bos: str, *, first: bool) -> str:
    """The prompt of a planned request, which is always text; a BOS comes in the `first` prompt alone."""
    assert isinstance(planned.prompt, TextPrompt)
    return planned.prompt.text if first else planned.prompt.text.removeprefix(bos)


_NO_TIME = re.compile(r"[+-]?(0+(\.0*)?(ns|us|µs|μs|ms|s|m|h))+|[+-]?0")
"""A duration of nothing, as Go writes it."""


def unloads(body: SharedBody) -> bool:
    """Whether a request without a prompt asks for the end of the model rather than for its beginning."""
    kept = body.keep_alive
    if isinstance(kept, str):
        return _NO_TIME.fullmatch(kept) is not None
    return type(kept) in (int, float) and kept == 0


def shows_thinking(body: SharedBody) -> bool:
    """Whether thoughts are reported."""
    return body.think is not False


def _request(
    body: SharedBody,
    request_id: str,
    prompt: str,
    default_length: int | None,
    grammar: JsonGrammar | None,
) -> GenerationRequest:
    options = body.options
    request = to_request(
        _kobold_fields(options),
        request_id,
        TextPrompt(prompt),
        max_tokens=_length(options, DEFAULT_LENGTH if default_length is None else default_length),
        stop=options.stop,
        seed=options.seed,
        logprobs=body.top_logprobs if body.logprobs else None,
        grammar=grammar,
    )
    return request if body.truncate else replace(request, whole_only=True)


def _kobold_fields(options: Options) -> Options:
    """The same under Kobold's names, where Ollama's were used."""
    renamed: dict[str, Any] = {
        "max_context_length": options.num_ctx,
        "rep_pen_range": options.repeat_last_n,
        "tfs": options.tfs_z,
        "typical": options.typical_p,
    }
    if options.repeat_last_n is not None and options.repeat_last_n < 0:
        renamed["rep_pen_range"] = COUNT_LIMIT
    if options.repeat_last_n == 0:
        off = {"rep_pen": 1.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
        renamed |= off | {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    return options.model_copy(update={name: value for name, value in renamed.items() if value is not None})


def _length(options: Options, fallback: int) -> int:
    """The first name that was used; every number below 0 goes on to the end, as in Ollama."""
    length = said_length(options, options.num_predict)
    if length is None:
        return fallback
    return UNTIL_END if length < 0 else length


def _check(body: OllamaGenerateBody) -> None:
    if body.images:
        raise RequestError(UNSEEN)
    if body.suffix:
        raise RequestError("suffix: nothing is filled in between two texts here")


def _grammar(form: str | dict[str, Any]) -> JsonGrammar | None:
    if isinstance(form, dict):
        return JsonGrammar(json.dumps(form))
    if form == "json":
        return JsonGrammar('{"type": "object"}')
    if form:
        raise RequestError('format: must be "json" or a JSON schema')
    return None


def _effort(body: SharedBody) -> str:
    match body.think:
        case str(effort):
            return effort
        case False:
            return "none"
    return ""


def _messages(listed: list[MessageBody]) -> tuple[dict[str, Any], ...]:
    """Messages in OpenAI's shape, where every call has an id and every result says whose it is."""
    messages = []
    waiting: dict[str, str] = {}
    for number, said in enumerate(listed):
        if said.images:
            raise RequestError(f"messages.{number}.{UNSEEN}")
        message: dict[str, Any] = {"role": said.role, "content": said.content}
        if said.thinking:
            message["reasoning_content"] = said.thinking
        if said.tool_calls:
            message["tool_calls"] = [
                _call(call.id or f"call_{number}_{index}", call.function.name, call.function.arguments)
                for index, call in enumerate(said.tool_calls)
            ]
            waiting |= {call["id"]: call["function"]["name"] for call in message["tool_calls"]}
        if said.role == "tool":
            message |= _whose(said, waiting)
        messages.append(message)
    return tuple(messages)


def _call(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": call_id, "type": "function", "function": function}


def _whose(result: MessageBody, waiting: dict[str, str]) -> dict[str, str]:
    """Which call a result answers: by its id, else the first waiting one of that tool, else the first.

    `waiting` maps the ids of unanswered calls to their tools, and loses the call.
    """
    found = next(
        (call for call, name in waiting.items() if result.tool_name in ("", name)), result.tool_call_id
    )
    call_id = result.tool_call_id or found
    name = waiting.pop(call_id, result.tool_name)
    return ({"tool_call_id": call_id} if call_id else {}) | ({"name": name} if name else {})
