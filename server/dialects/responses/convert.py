"""The only translator between the Responses wire and the server's messages. Pure."""

import json
from dataclasses import replace
from typing import Any

from engine.errors import RequestError
from engine.types import UNTIL_END, GenerationRequest, JsonGrammar, TextPrompt
from server.chat.call import ChatCall
from server.dialects.responses.items import Message
from server.dialects.responses.schemas import REFUSED, ConversationBody, FormatBody, ResponsesBody
from server.wire.generation_fields import said_length, to_request
from server.wire.tool_choice import read_choice
from server.wire.tools import Offer, Tell

LOGPROBS = "message.output_text.logprobs"
SEALED_THOUGHTS = "reasoning.encrypted_content"
EFFORTS = {
    None: "", "none": "none", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high",
    "xhigh": "high", "max": "high",
}  # fmt: skip


def chat_call(
    body: ConversationBody, conversation: tuple[Message, ...], offer: Offer, tell: Tell
) -> ChatCall:
    """The turn that is asked for, after all of `conversation`, earlier responses included.

    `offer`: the body's tools; `tell` hears of a choice among them that has no effect. Raises `RequestError`
    for fields without which the reply would answer another question.
    """
    for name, reason in REFUSED.items():
        if getattr(body, name):
            raise RequestError(f"{name}: {reason}")
    told: tuple[Message, ...] = ()
    if body.instructions:
        told = ({"role": "system", "content": body.instructions},)
    choice = read_choice(body.tool_choice, offer, tell)
    return ChatCall(
        messages=told + conversation,
        tools=offer.tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        grammar=_grammar(body.text.format),
        reasoning_effort=EFFORTS[body.reasoning.effort],
    )


def base_request(body: ResponsesBody, request_id: str, default_length: int | None) -> GenerationRequest:
    """The request without its prompt, which is planned.

    Without a length, and without `default_length`, the server's setting, the reply ends with the context.
    """
    logprobs = body.top_logprobs
    if logprobs is None and LOGPROBS in body.include:
        logprobs = 0
    request = to_request(
        body,
        request_id,
        TextPrompt(""),
        max_tokens=_length(body, UNTIL_END if default_length is None else default_length),
        stop=body.stop,
        seed=body.seed,
        logprobs=logprobs,
    )
    return replace(request, prompt_first=True)


def echo(body: ResponsesBody) -> dict[str, Any]:
    """What a response says of the request that it answers."""
    form = body.text.format
    return {
        "background": False,
        "instructions": body.instructions or None,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning.effort, "summary": None},
        "store": body.store,
        "temperature": body.temperature,
        "text": {"format": form.model_dump(by_alias=True, exclude_unset=True) | {"type": form.type}},
        "tool_choice": body.tool_choice,
        "tools": [{"strict": True} | tool if tool.get("type") == "function" else tool for tool in body.tools],
        "top_logprobs": body.top_logprobs if body.top_logprobs is not None else 0,
        "top_p": body.top_p,
        "truncation": "disabled" if body.truncation == "disabled" else "auto",
        "user": None,
    }


def _length(body: ResponsesBody, fallback: int) -> int:
    """The first name that was used; numbers below -2 say nothing."""
    length = said_length(body, body.max_output_tokens)
    return fallback if length is None or length < 0 else length


def _grammar(form: FormatBody) -> JsonGrammar | None:
    match form.type:
        case "json_object":
            return JsonGrammar('{"type": "object"}')
        case "json_schema":
            if form.json_schema is None:
                raise RequestError("text.format.schema: a format of type json_schema needs a schema")
            return JsonGrammar(json.dumps(form.json_schema))
    return None
