"""The wire of the Responses dialect: what clients send."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from server.wire.generation_fields import IGNORED as IGNORED_GENERATION_FIELDS
from server.wire.generation_fields import MESSAGES_LIMIT, GenerationFields
from server.wire.lenient import Length, Name, Natural, Seed, Texts, Truth, WireModel
from server.wire.sampler_fields import NOT_YET as SAMPLERS_NOT_YET
from server.wire.sampler_fields import NotYet, empty, field
from server.wire.tool_parameters import finite
from server.wire.tools import Declared

METADATA_ENTRIES = 16
"""Most pairs of `metadata`, OpenAI's limit."""


def _sendable(value: dict[str, Any]) -> dict[str, Any]:
    """What responses say again must be JSON for every reader; Python's also takes NaN and 1e999."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON with finite numbers, and not nested too deep") from None
    return value


def _tools(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools, each of which can be said again."""
    given = ({name: item for name, item in tool.items() if item is not None} for tool in value)
    return [_sendable(finite(tool)) for tool in given]


def _choice(value: Any) -> Any:
    """A choice of tools, which can be said again."""
    return _sendable(value) if isinstance(value, dict) else value


def _few(value: Any) -> Any:
    """Not more pairs than there may be, counted before any of them is looked at."""
    if isinstance(value, dict) and len(value) > METADATA_ENTRIES:
        raise ValueError(f"must have at most {METADATA_ENTRIES} pairs")
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_sendable)]


class FormatBody(WireModel):
    """What the reply's text must be."""

    type: Literal["text", "json_object", "json_schema"] = field(
        "text", "any text, any JSON object, or JSON that `schema` admits"
    )
    name: Name = field("", "echoed")
    json_schema: JsonObject | None = Field(
        default=None, alias="schema", description="a JSON schema that the text follows"
    )
    strict: Truth = field(False, "echoed: a schema is always followed")


class TextBody(WireModel):
    """The form of the reply's text."""

    format: FormatBody = field(FormatBody(), "what the text must be")
    verbosity: Name | None = field(None, "ignored: no model here is told how much to say")


class ReasoningBody(WireModel):
    """How much the model thinks before it answers."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = field(
        None, "how long the model may think; none: not at all"
    )


class ConversationBody(WireModel):
    """Body of `/v1/responses/input_tokens`: all that the model gets to read."""

    input: str | Annotated[list[dict[str, Any]], Field(max_length=MESSAGES_LIMIT)] = field(
        ..., "a question, or the items of a conversation"
    )
    instructions: str = field("", "what the model is told before the conversation")
    previous_response_id: Name | None = field(None, "the response whose conversation goes on")
    tools: Annotated[Declared, AfterValidator(_tools)] = field(
        [], "tools that the model may call: functions, custom tools, namespaces; others are skipped"
    )
    tool_choice: Annotated[str | dict[str, Any], AfterValidator(_choice)] = field(
        "auto", "none, auto, required, a tool, or a list of allowed ones"
    )
    parallel_tool_calls: Truth | None = field(
        None, "let a reply call several tools; unset, it may where it need not call any"
    )
    text: TextBody = field(TextBody(), "form of the reply's text")
    reasoning: ReasoningBody = field(ReasoningBody(), "how much the model thinks before it answers")
    background: Any = field(None, "refused: responses are made while the client waits")
    conversation: Any = field(None, "refused: use previous_response_id")
    prompt: Any = field(None, "refused: no prompts are kept here")

    model: Any = field(None, "ignored: one model is loaded")


class ResponsesBody(ConversationBody, GenerationFields):
    """Body of `/v1/responses`."""

    max_output_tokens: Length | None = field(
        None, "tokens to make, thoughts included; -1: until the context is full", least=-2
    )
    stop: Texts | None = field(None, "strings that end the reply")
    seed: Seed = field(None, "seed of the random numbers; below 1 a fresh one")
    top_logprobs: Natural | None = field(
        None, "likeliest tokens reported beside each chosen one", least=0, most=20
    )
    include: Texts = field(
        (),
        "`message.output_text.logprobs`: the probabilities of the tokens; `reasoning.encrypted_content`: "
        "thoughts in a form that clients send back",
    )
    stream: Truth = field(False, "send the reply as server-sent events while it is made")
    store: Truth = field(True, "keep the response for a while, so that a later one can go on with it")
    metadata: Annotated[dict[str, str], Field(max_length=METADATA_ENTRIES), BeforeValidator(_few)] = field(
        {}, "echoed"
    )

    user: Any = field(None, "ignored")
    safety_identifier: Any = field(None, "ignored")
    prompt_cache_key: Any = field(None, "ignored: every prompt is cached")
    prompt_cache_options: Any = field(None, "ignored: every prompt is cached")
    prompt_cache_retention: Any = field(None, "ignored: every prompt is cached")
    service_tier: Any = field(None, "ignored")
    stream_options: Any = field(None, "ignored")
    max_tool_calls: Any = field(None, "ignored: no tools run here")
    moderation: Any = field(None, "not supported")
    context_management: Any = field(None, "not supported")


REFUSED: dict[str, str] = {
    "background": "responses are made while the client waits; use stream",
    "conversation": "conversations are not kept by name; use previous_response_id",
    "prompt": "no prompts are kept on this server; send the text as instructions or input",
}
"""Without these the reply would answer another question."""

NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET | {
    "moderation": NotYet("nothing is moderated here", empty),
    "context_management": NotYet("a prompt that does not fit loses its oldest part instead", empty),
}

COUNT_IGNORED: dict[str, str] = {
    "model": "one model is loaded, and it answers under any name",
}

IGNORED: dict[str, str] = (
    IGNORED_GENERATION_FIELDS
    | COUNT_IGNORED
    | {
        "user": "clients are told apart by their address and genkey",
        "safety_identifier": "clients are told apart by their address and genkey",
        "prompt_cache_key": "the beginning of every prompt is cached without being asked for",
        "prompt_cache_options": "the beginning of every prompt is cached without being asked for",
        "prompt_cache_retention": "the beginning of every prompt is cached without being asked for",
        "service_tier": "there is one tier",
        "stream_options": "streams are not padded against eavesdroppers; that is for a proxy with TLS",
        "max_tool_calls": "it counts tools that run at OpenAI, and none run here",
    }
)
