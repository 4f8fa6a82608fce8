"""The only translator between the OpenAI wire and the engine's messages. Pure."""

from collections.abc import Iterable
from typing import Any

from engine.types import (
    ChatPrompt,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    Prompt,
    TextPrompt,
    TokenPrompt,
    Usage,
)
from server.dialects.openai.schemas import ChatBody, CompletionBody, Message, SharedBody
from server.wire.sampler_fields import to_sampling

DEFAULT_LENGTH = 180
DEFAULT_CHAT_LENGTH = 400
STOP_STRINGS = 256

FINISH = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "length",
}


def completion_requests(
    body: CompletionBody, request_id: str, default_length: int | None
) -> list[GenerationRequest]:
    """One request for each prompt; `body.n` is for the caller."""
    fallback = DEFAULT_LENGTH if default_length is None else default_length
    prompts: list[Prompt] = [
        TextPrompt(prompt, body.memory) if isinstance(prompt, str) else TokenPrompt(prompt)
        for prompt in body.prompt
    ]
    return [_request(body, f"{request_id}-{index}", prompt, fallback) for index, prompt in enumerate(prompts)]


def chat_request(body: ChatBody, request_id: str, default_length: int | None) -> GenerationRequest:
    """The request for the next message."""
    fallback = DEFAULT_CHAT_LENGTH if default_length is None else default_length
    prompt = ChatPrompt(
        messages=tuple(_message(message) for message in body.messages),
        template_args=body.chat_template_kwargs,
        continue_last=body.continue_assistant_turn,
    )
    return _request(body, request_id, prompt, fallback)


def _request(body: SharedBody, request_id: str, prompt: Prompt, fallback: int) -> GenerationRequest:
    fields = body if body.seed is None else body.model_copy(update={"sampler_seed": body.seed})
    ban_eos = body.use_default_badwordsids if body.ban_eos_token is None else body.ban_eos_token
    context = body.max_context_length
    stop = body.stop_sequence if body.stop is None else body.stop
    return GenerationRequest(
        request_id=request_id,
        prompt=prompt,
        max_tokens=_length(body, fallback),
        sampling=to_sampling(fields),
        context_length=context if context is not None and context > 0 else None,
        stop=stop[:STOP_STRINGS],
        trim_stop=body.trim_stop,
        ban_eos=ban_eos and not body.bypass_eos,
        ignore_eos=body.bypass_eos,
        render_special=body.render_special,
    )


def _length(body: SharedBody, fallback: int) -> int:
    """The first name that was used; a negative number is some clients' word for "as you like"."""
    for length in (body.max_tokens, body.max_completion_tokens, body.max_length):
        if length is not None:
            return length if length >= 0 else fallback
    return fallback


def _message(message: Message) -> dict[str, Any]:
    """A message as templates know it: text content, and `system` for OpenAI's newer `developer`."""
    content = message.content
    if not isinstance(content, str):
        content = "".join(_text_of(part) for part in content)
    role = "system" if message.role == "developer" else message.role
    return {**(message.model_extra or {}), "role": role, "content": content}


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


def model_name(info: ModelInfo) -> str:
    """The name that clients see."""
    return f"koboldcpp/{info.name}"


def models_reply(info: ModelInfo, created: int) -> dict[str, Any]:
    """The answer of `/v1/models`."""
    model = {
        "id": model_name(info),
        "object": "model",
        "created": created,
        "owned_by": "koboldcpp",
        "permission": [],
        "root": "koboldcpp",
    }
    return {"object": "list", "data": [model]}
