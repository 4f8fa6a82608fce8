"""The wire of the OpenAI dialect: what clients send."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from server.wire.lenient import Count, Name, Seed, Texts, Truth, WireModel
from server.wire.sampler_fields import IGNORED as IGNORED_SAMPLER_FIELDS
from server.wire.sampler_fields import NOT_YET as SAMPLERS_NOT_YET
from server.wire.sampler_fields import NotYet, SamplerFields, empty, exactly

CHOICES_LIMIT = 16
"""Most choices of one request, over all its prompts."""

TokenId = Annotated[int, Field(strict=True, ge=0)]


class StreamOptions(WireModel):
    """What else a stream should tell."""

    include_usage: Truth = False


class SharedBody(SamplerFields):
    """What completions and chat have in common."""

    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    max_length: Count | None = None
    max_context_length: Count | None = None
    n: Annotated[Count, Field(ge=1, le=CHOICES_LIMIT)] = 1
    stop: Texts | None = None
    stop_sequence: Texts = ()
    seed: Seed = None
    stream: Truth = False
    stream_options: StreamOptions = StreamOptions()
    trim_stop: Truth = True
    ban_eos_token: Truth | None = None
    use_default_badwordsids: Truth = False
    bypass_eos: Truth = False
    render_special: Truth = False
    genkey: Name = ""

    model: Any = None
    user: Any = None
    logprobs: Any = None
    mirostat_mode: Any = None
    response_format: Any = None
    json_schema: Any = None
    reasoning_effort: Any = None
    replace_instruct_placeholders: Any = None


def _prompts(value: Any) -> Any:
    """A list of prompts, whichever of the four forms was sent."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(type(item) is int for item in value):
        return [value]
    return value


class CompletionBody(SharedBody):
    """Body of `/v1/completions`."""

    prompt: Annotated[
        tuple[str | tuple[TokenId, ...], ...],
        BeforeValidator(_prompts),
        Field(min_length=1, max_length=CHOICES_LIMIT),
    ] = ("",)
    memory: str = ""
    echo: Truth = False

    suffix: Any = None
    best_of: Any = None


class Message(WireModel):
    """One message of a chat. What the template may want beyond these fields is passed on."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str | list[dict[str, Any] | str] = ""


class ChatBody(SharedBody):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    continue_assistant_turn: Truth = True
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    memory: Any = None
    tools: Any = None
    tool_choice: Any = None
    top_logprobs: Any = None
    adapter: Any = None
    images: Any = None
    audio: Any = None


def _text_format(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


SHARED_NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET | {
    "logprobs": NotYet("token probabilities are not reported yet", empty),
    "mirostat_mode": NotYet("mirostat comes with the full sampler chain", exactly(0)),
    "response_format": NotYet("grammars are not built yet; the reply is free text", _text_format),
    "json_schema": NotYet("grammars are not built yet; the reply is free text", empty),
    "reasoning_effort": NotYet("thinking budgets are not built yet", empty),
}

COMPLETION_NOT_YET: dict[str, NotYet] = SHARED_NOT_YET | {
    "suffix": NotYet("filling in the middle is not built yet", empty),
    "best_of": NotYet("all choices are returned, as many as `n` says", exactly(1)),
}

CHAT_NOT_YET: dict[str, NotYet] = SHARED_NOT_YET | {
    "tools": NotYet("tool calls are not built yet; the model is not told of the tools", empty),
    "memory": NotYet("chat has no memory beside its messages yet", empty),
    "adapter": NotYet("the model's own chat template is used", empty),
    "images": NotYet("no models that see are supported yet", empty),
    "audio": NotYet("no models that hear are supported yet", empty),
}

SHARED_IGNORED: dict[str, str] = IGNORED_SAMPLER_FIELDS | {
    "model": "one model is loaded, and it answers under any name",
    "user": "clients are told apart by their address and genkey",
    "replace_instruct_placeholders": "the version reported is one that sends no placeholders",
}

COMPLETION_IGNORED: dict[str, str] = SHARED_IGNORED

CHAT_IGNORED: dict[str, str] = SHARED_IGNORED | {
    "tool_choice": "a parameter of tools",
    "top_logprobs": "a parameter of logprobs",
}
