"""What a client asks of a chat, in no dialect's words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.types import Grammar


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters`: the JSON schema of its arguments, an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


class ToolMode(StrEnum):
    """Whether the model may, must or must not call a tool."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The mode, and the one tool that is meant, if one is.

    `allowed`: names of the tools that may be called, all where it is None. The model is told of the others as
    well, so that its prompt stays the same.
    """

    mode: ToolMode = ToolMode.AUTO
    name: str | None = None
    allowed: frozenset[str] | None = None

    def admits(self, tool: Tool) -> bool:
        """Whether the tool may be called."""
        return self.name in (None, tool.name) and (self.allowed is None or tool.name in self.allowed)


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One turn that is asked for.

    `messages` have OpenAI's shape: `role`, `content` (text), and where it applies `tool_calls`,
    `tool_call_id`, `name`, and past thoughts as `reasoning_content`. `parallel_tool_calls`: whether a reply
    may hold several calls; None lets it where it may call, and not where it must: small models would not
    stop. `grammar` binds the reply, `tools` aside. `continue_last`: a last message of the assistant is gone
    on with. `adapter`: tags of the client's own, instead of the model's template. `split_reasoning`: thoughts
    are reported apart from the answer. `reasoning_effort` (`none`, `minimal`, `low`, `medium`, `high`, or
    nothing) and `thinking_budget` (tokens) bound them. `special`: control tokens that messages spell are read
    as such; None leaves that to the server's settings.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool | None = None
    grammar: Grammar | None = None
    continue_last: bool = True
    template_args: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] | None = None
    memory: str = ""
    split_reasoning: bool = True
    reasoning_effort: str = ""
    thinking_budget: int | None = None
    special: bool | None = None
