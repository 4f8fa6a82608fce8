"""The only translator between the Anthropic wire and the server's messages. Pure."""

import json

from engine.errors import RequestError
from engine.types import GenerationRequest, JsonGrammar, TextPrompt
from server.chat.call import ChatCall, Tool, ToolChoice, ToolMode
from server.dialects.anthropic.schemas import ConversationBody, MessagesBody
from server.dialects.anthropic.turns import to_messages
from server.wire.generation_fields import to_request

MODES = {
    "auto": ToolMode.AUTO,
    "any": ToolMode.REQUIRED,
    "tool": ToolMode.REQUIRED,
    "none": ToolMode.NONE,
}

EFFORTS = {None: "", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def chat_call(body: ConversationBody) -> ChatCall:
    """The turn that is asked for. Raises `RequestError` for blocks that the model cannot read.

    A model that can think does so only when asked, as at Anthropic: many clients take the first block
    of a reply for its text.
    """
    choice, output = body.tool_choice, body.output_config
    thinking = body.thinking if shows_thinking(body) else None
    budget = None if thinking is None else thinking.budget_tokens
    effort = EFFORTS[output.effort] if budget is None else ""
    return ChatCall(
        messages=to_messages(body.system, body.messages),
        tools=tuple(Tool(tool.name, tool.description, tool.input_schema) for tool in body.tools),
        tool_choice=ToolChoice() if choice is None else ToolChoice(MODES[choice.type], _named(body)),
        parallel_tool_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
        grammar=None if output.format is None else JsonGrammar(json.dumps(output.format.json_schema)),
        reasoning_effort="none" if thinking is None else effort,
        thinking_budget=budget,
    )


def base_request(body: MessagesBody, request_id: str) -> GenerationRequest:
    """The request without its prompt, which is planned."""
    stop = body.stop_sequences or None
    return to_request(body, request_id, TextPrompt(""), max_tokens=body.max_tokens, stop=stop)


def counting_request() -> GenerationRequest:
    """The base of a request whose prompt is only counted."""
    return GenerationRequest("count", TextPrompt(""), max_tokens=0)


def prompt_text(planned: GenerationRequest) -> str:
    """The prompt of a planned request, which is always text."""
    assert isinstance(planned.prompt, TextPrompt)
    return planned.prompt.text


def shows_thinking(body: ConversationBody) -> bool:
    """Whether the reply has blocks of thinking."""
    return body.thinking is not None and body.thinking.type != "disabled"


def _named(body: ConversationBody) -> str | None:
    choice = body.tool_choice
    if choice is None or choice.type != "tool":
        return None
    if choice.name is None:
        raise RequestError("tool_choice.name: must name a tool")
    return choice.name
