"""The assistant's message, whole and as it comes."""

from dataclasses import dataclass
from enum import StrEnum

from engine.types import TokenLogprob, Usage


class Ending(StrEnum):
    """Why a message ends, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. `arguments`: JSON text of an object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of the answer's text. `logprobs` cover the tokens since the last report."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the thoughts."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the call number `index`. The first delta of a call has `id` and `name`, later ones neither."""

    index: int
    arguments: str = ""
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of the message."""

    ending: Ending
    usage: Usage
    error: str | None = None
    refused: bool = False
    """Whether the error is the request's own."""


Delta = ContentDelta | ReasoningDelta | ToolCallDelta | Ended


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    ending: Ending
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    error: str | None = None
    refused: bool = False
