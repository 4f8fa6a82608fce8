"""The wire of the OpenAI dialect: what clients send."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from server.wire.generation_fields import IGNORED as IGNORED_GENERATION_FIELDS
from server.wire.generation_fields import MESSAGES_LIMIT, GenerationFields
from server.wire.lenient import Count, CountReader, Length, Name, Seed, Texts, Truth, WireModel
from server.wire.response_form import Schema
from server.wire.sampler_fields import LEFT_OUT, NotYet, empty, exactly, field
from server.wire.sampler_fields import NOT_YET as SAMPLERS_NOT_YET
from server.wire.tools import Declared

CHOICES_LIMIT = 16
"""Most choices of one request, over all its prompts."""

TokenId = Annotated[int, Field(strict=True, ge=0)]


class StreamOptions(WireModel):
    """What else a stream should tell."""

    include_usage: Truth = field(False, "send the costs in a last chunk without choices")


class SharedBody(GenerationFields):
    """What completions and chat have in common."""

    max_tokens: Length | None = field(None, "tokens to make; -1: until the context is full", least=-2)
    max_completion_tokens: Length | None = field(None, "newer name of max_tokens", least=-2)
    n: Annotated[int, Field(ge=1, le=CHOICES_LIMIT), CountReader] = field(1, "answers to make")
    stop: Texts | None = field(None, "string or strings that end the text")
    seed: Seed = field(None, "seed of the random numbers; below 1 a fresh one", least=-1)
    stream: Truth = field(False, "answer with server-sent events as the text is made")
    stream_options: StreamOptions = field(StreamOptions(), "what else a stream should tell")
    return_progress: Truth = field(False, "let a stream tell how far the prompt is read, as llama.cpp does")
    mirostat_mode: Count | None = field(None, "another name of mirostat, which it replaces", least=0, most=2)
    response_format: dict[str, Any] | None = field(
        None, 'what the text must be: {"type": "text", "json_object" or "json_schema"}'
    )
    json_schema: Schema = field(None, "a JSON schema that the text must follow; an empty one says nothing")

    model: Any = field(None, "ignored: the loaded model answers under any name")
    user: Any = field(None, "ignored")


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def _unless_false(value: Any) -> Any:
    """`false` is Kobold's word for no probabilities, where OpenAI has a number."""
    return None if value is False else value


def as_list(value: Any) -> Any:
    """A list of prompts or inputs, whichever of the four forms was sent."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(type(item) is int for item in value):
        return [value]
    return value


class CompletionBody(SharedBody):
    """Body of `/v1/completions`."""

    prompt: Annotated[
        tuple[str | tuple[TokenId, ...], ...],
        BeforeValidator(as_list),
        Field(min_length=1, max_length=CHOICES_LIMIT),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    _IDS,
                    {
                        "type": "array",
                        "items": {"anyOf": [{"type": "string"}, _IDS]},
                        "minItems": 1,
                        "maxItems": CHOICES_LIMIT,
                    },
                ]
            }
        ),
    ] = field(("",), "text, token ids, or a list of either", shown="")
    memory: str = field("", "text in front of each prompt, kept whole when it is cut to fit")
    echo: Truth = field(False, "begin the answer with the prompt, and with its probabilities")
    replace_instruct_placeholders: Truth = field(
        True, "put the model's own tags for {{[INPUT]}}, {{[OUTPUT]}} and {{[SYSTEM]}}"
    )
    logprobs: Annotated[Count | None, BeforeValidator(_unless_false)] = field(
        None, "so many alternatives reported for each token", least=0, most=20
    )

    suffix: Any = field(None, "not supported: nothing is filled in between two texts")
    best_of: Any = field(None, "not supported beyond `n`")


class ChatMessage(WireModel):
    """One message of a chat. What the template may want beyond these fields is passed on."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str = Field(description="system, user, assistant or tool")
    content: str | list[dict[str, Any] | str] = field("", "text, or parts of it")
    tool_calls: list[dict[str, Any]] = field([], "the calls of tools that the message makes")


class ChatBody(SharedBody):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[
        list[ChatMessage],
        Field(min_length=1, max_length=MESSAGES_LIMIT, description="the conversation so far"),
    ]
    continue_assistant_turn: Truth = field(True, "go on with a last message of the assistant")
    chat_template_kwargs: dict[str, Any] = field({}, "further variables of the model's chat template")
    memory: str = field("", "text in front of the whole prompt")
    tools: Declared = field(
        [], "tools that the model may call: functions and custom tools; others are skipped"
    )
    tool_choice: str | dict[str, Any] | None = field(
        None, "none, auto, required, a tool, or a list of allowed ones"
    )
    parallel_tool_calls: Truth | None = field(
        None, "let a reply call several tools; unset, it may where it need not call any"
    )
    logprobs: Count | None = field(None, "true: report the probabilities of the tokens")
    top_logprobs: Count | None = field(
        None, "so many alternatives reported for each token; unset: 0, and 10 with a genkey", least=0, most=20
    )
    reasoning_effort: Name = field("", "none, minimal, low, medium or high: how long a model may think")
    thinking_budget_tokens: Count = field(-1, "tokens of thought; used without reasoning_effort", least=-1)
    encapsulate_thinking: Truth = field(True, "report thoughts apart from the answer")
    adapter: dict[str, Any] | None = field(None, "tags of the client's own instead of the model's template")
    special_in_messages: Truth | None = field(
        None, "read control tokens that messages spell as such; unset: as the server is set"
    )

    images: Any = field(None, "not supported: no model that sees is loaded")
    audio: Any = field(None, "not supported: no model that hears is loaded")
    functions: Any = field(None, "refused: older form of tools")
    function_call: Any = field(None, "ignored: a parameter of functions")
    modalities: Any = field(None, "text alone; anything else is refused")
    web_search_options: Any = field(None, "not supported: no web is searched")
    replace_instruct_placeholders: Any = field(None, "ignored: messages have roles instead")


COMPLETION_NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET | {
    "best_of": NotYet("all choices are returned, as many as `n` says", exactly(1)),
}

COMPLETION_LEFT_OUT: dict[str, NotYet] = LEFT_OUT | {
    "suffix": NotYet(
        "nothing is filled in between two texts, and the model continues the prompt alone", empty
    ),
}

CHAT_NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET | {
    "web_search_options": NotYet("no web is searched from here", empty),
}

CHAT_REFUSED: dict[str, str] = {
    "functions": "this older form of tools is not known here; use tools",
    "modalities": "replies are text; leave it out",
}
"""Without these the reply would answer another question."""

CHAT_LEFT_OUT: dict[str, NotYet] = LEFT_OUT | {
    "images": NotYet("no model that sees is loaded, and the model answers the text alone", empty),
    "audio": NotYet("no model that hears is loaded, and the model answers the text alone", empty),
}

COMPLETION_IGNORED: dict[str, str] = IGNORED_GENERATION_FIELDS | {
    "model": "one model is loaded, and it answers under any name",
    "user": "clients are told apart by their address and genkey",
}

CHAT_IGNORED: dict[str, str] = COMPLETION_IGNORED | {
    "function_call": "a parameter of functions, which are refused",
    "replace_instruct_placeholders": "messages have roles, which need no placeholders",
}
