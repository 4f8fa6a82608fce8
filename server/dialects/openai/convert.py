"""The only translator between the OpenAI wire and the engine's messages. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from engine.errors import RequestError
from engine.types import (
    FinishReason,
    GenerationRequest,
    Grammar,
    ModelInfo,
    Prompt,
    TextPrompt,
    TokenPrompt,
    Usage,
)
from server.chat.adapters import Adapter
from server.chat.call import ChatCall, Tool, ToolChoice, ToolMode
from server.chat.placeholders import fill_placeholders
from server.dialects.openai.schemas import ChatBody, ChatMessage, CompletionBody, SharedBody, ToolBody
from server.wire import generation_fields
from server.wire.names import model_name
from server.wire.response_form import form_grammar, schema_grammar

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


def chat_call(body: ChatBody) -> ChatCall:
    """What is asked of the chat. Raises `RequestError`."""
    return ChatCall(
        messages=tuple(_message(message) for message in body.messages),
        tools=tuple(_tool(tool) for tool in body.tools),
        tool_choice=tool_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        grammar=_grammar(body),
        continue_last=body.continue_assistant_turn,
        template_args=body.chat_template_kwargs,
        adapter=body.adapter,
        memory=body.memory,
        split_reasoning=body.encapsulate_thinking,
        reasoning_effort=body.reasoning_effort,
        thinking_budget=body.thinking_budget_tokens if body.thinking_budget_tokens >= 0 else None,
    )


def tool_choice(value: str | dict[str, Any] | None) -> ToolChoice:
    """OpenAI's word for it. Raises `RequestError`."""
    match value:
        case None:
            return ToolChoice()
        case "auto" | "required" | "none":
            return ToolChoice(ToolMode(value))
        case {"function": {"name": str(name)}}:
            return ToolChoice(ToolMode.REQUIRED, name)
    raise RequestError('tool_choice must be "none", "auto", "required" or {"function": {"name": ...}}')


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
    return generation_fields.to_request(
        fields,
        request_id,
        prompt,
        max_tokens=_length(body, fallback),
        stop=stop,
        seed=body.seed,
        logprobs=logprobs,
        grammar=grammar,
    )


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


def _message(message: ChatMessage) -> dict[str, Any]:
    """A message as templates know it: text content, and `system` for OpenAI's newer `developer`."""
    content = message.content
    if not isinstance(content, str):
        content = "".join(_text_of(part) for part in content)
    role = "system" if message.role == "developer" else message.role
    said = {**(message.model_extra or {}), "role": role, "content": content}
    return said | {"tool_calls": message.tool_calls} if message.tool_calls else said


def _tool(tool: ToolBody) -> Tool:
    if tool.type != "function":
        raise RequestError(f"tools of type {tool.type[:40]!r} are not known, only functions")
    return Tool(tool.function.name, tool.function.description, tool.function.parameters)


def _text_of(part: dict[str, Any] | str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if part.get("type", "text") == "text" else None
    return text if isinstance(text, str) else ""


def usage_reply(usages: Iterable[Usage], choices: int) -> dict[str, Any]:
    """The costs of all generations of a call; each prompt counts once, however many choices it has."""
    listed = list(usages)
    prompt = sum(usage.prompt_tokens for usage in listed[::choices])
    made = sum(usage.completion_tokens for usage in listed)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in listed[::choices])},
    }


def models_reply(info: ModelInfo, created: int) -> dict[str, Any]:
    """The answer of `/v1/models`."""
    model = {
        "id": model_name(info),
        "object": "model",
        "created": created,
        "owned_by": "koboldcpp",
        "permission": [],
        "root": "koboldcpp",
        "status": {"value": "loaded"},
    }
    return {"object": "list", "data": [model]}
