"""The wire of the Anthropic dialect: what clients send."""

from typing import Annotated, Any, Literal

from pydantic import Field

from server.wire.generation_fields import IGNORED as IGNORED_GENERATION_FIELDS
from server.wire.generation_fields import MESSAGES_LIMIT, GenerationFields
from server.wire.lenient import Count, Natural, PositiveLength, Real, Texts, Truth, WireModel
from server.wire.sampler_fields import NOT_YET as SAMPLERS_NOT_YET
from server.wire.sampler_fields import NotYet, empty, field
from server.wire.tools import Declared

Blocks = str | list[dict[str, Any]]
"""Content: text, or blocks, each with a `type`."""


class Turn(WireModel):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"] = Field(description="who speaks")
    content: Blocks = Field(description="what is said: text, or blocks")


class ThinkingBody(WireModel):
    """Whether the model thinks before it answers; without it, it does not."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"] = Field(
        description="`disabled`: it does not think; with any other type it does"
    )
    budget_tokens: Natural | None = field(None, "most tokens of thought", least=0)


class FormatBody(WireModel):
    """What the reply's text must be."""

    type: Literal["json_schema"] = Field(description="the only form there is beside plain text")
    json_schema: dict[str, Any] = Field(alias="schema", description="a JSON schema that the text follows")


class OutputBody(WireModel):
    """The form of the reply, and how much is spent on it."""

    format: FormatBody | None = field(None, "what the text must be; absent: any text")
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = field(
        None, "how long the model may think"
    )


class ConversationBody(WireModel):
    """Body of `/v1/messages/count_tokens`: all that the model gets to read."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MESSAGES_LIMIT)] = field(
        ..., "the conversation so far"
    )
    system: Blocks = field("", "what the model is told before the conversation")
    tools: Declared = field([], "functions that the model may call; tools of other types are skipped")
    tool_choice: dict[str, Any] | str | None = field(
        None, 'whether one of them must be called, and which: {"type": "auto", "any", "tool" or "none"}'
    )
    thinking: ThinkingBody | None = field(None, "whether the model thinks before it answers")
    output_config: OutputBody = field(OutputBody(), "form of the reply, and the effort put into it")

    model: Any = field(None, "ignored: one model is loaded")
    cache_control: Any = field(None, "ignored: every prompt is cached")


class MessagesBody(ConversationBody, GenerationFields):
    """Body of `/v1/messages`. The samplers' defaults are Anthropic's: none of them is at work."""

    max_tokens: PositiveLength = field(
        ..., "tokens to make, thoughts included; -1: until the context is full", least=1
    )
    temperature: Real = field(1.0, "divides the logits; 0 always takes the likeliest token", least=0)
    top_k: Count = field(0, "keeps the so many likeliest tokens; 0 keeps all", least=0)
    top_p: Real = field(1.0, "keeps the likeliest tokens that reach this probability", least=0, most=1)
    stop_sequences: Texts = field((), "strings that end the reply")
    stream: Truth = field(False, "send the reply as server-sent events while it is made")

    metadata: Any = field(None, "ignored")
    service_tier: Any = field(None, "ignored")
    inference_geo: Any = field(None, "ignored")
    speed: Any = field(None, "ignored")
    container: Any = field(None, "not supported")
    mcp_servers: Any = field(None, "not supported")
    context_management: Any = field(None, "not supported")


NOT_YET: dict[str, NotYet] = SAMPLERS_NOT_YET | {
    "container": NotYet("no code is run here", empty),
    "mcp_servers": NotYet("no servers are called from here; the client has to call its tools", empty),
    "context_management": NotYet("a prompt that does not fit loses its oldest part instead", empty),
}

COUNT_IGNORED: dict[str, str] = {
    "model": "one model is loaded, and it answers under any name",
    "cache_control": "the beginning of every prompt is cached without being asked for",
}

IGNORED: dict[str, str] = (
    IGNORED_GENERATION_FIELDS
    | COUNT_IGNORED
    | {
        "max_length": "max_tokens is required and says it",
        "n_predict": "max_tokens is required and says it",
        "metadata": "clients are told apart by their address and genkey",
        "service_tier": "there is one tier",
        "inference_geo": "the model runs where the server runs",
        "speed": "every reply is made as fast as the machine allows",
    }
)
