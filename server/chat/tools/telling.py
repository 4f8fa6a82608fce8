"""Tools in messages: told to models whose template knows none, and ids that templates accept."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from server.chat.call import Tool
from server.chat.history import RESULT, SYSTEM, calls_of, role_of, text_of
from server.chat.message import ToolCall
from server.chat.tools.formats import HERMES_SPELLING

Messages = tuple[Mapping[str, Any], ...]

_SHORT_ID = 9
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9]")


def template_tools(tools: Sequence[Tool]) -> tuple[Mapping[str, Any], ...]:
    """The tools as chat templates expect them, which is OpenAI's shape."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    )


def describe_tools(tools: Sequence[Tool], parallel: bool) -> str:
    """What a model is told that learnt no format of its own: the tools, and how to call one."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in template_tools(tools))
    call = HERMES_SPELLING.write("NAME", "{ARGUMENTS}")
    several = "Several calls may follow each other." if parallel else "Make one call at a time."
    return (
        "You can use tools. Each line in the list is one tool, with the JSON schema of its arguments.\n"
        f"<tools>\n{listed}\n</tools>\n"
        "To use a tool, answer with its name and a JSON object of arguments in exactly this form:\n"
        f"{call}\n"
        f"{several} The result comes back between <tool_response> and </tool_response>. "
        "When no tool helps, answer in plain text."
    )


def write_tools(messages: Messages, instructions: str, *, keep_results: bool) -> Messages:
    """The messages with all that concerns tools as text.

    `instructions` are added to the first system message, or make one. Calls in the assistant's messages
    are spelled out. What tools gave back becomes the user's text, unless `keep_results`.
    """
    written: list[Mapping[str, Any]] = []
    for index, message in enumerate(messages):
        role = role_of(message, index)
        text = text_of(message, index)
        if role == "assistant" and (calls := calls_of(message, index)):
            written.append({"role": role, "content": _with_calls(text or "", calls)})
        elif role in RESULT and not keep_results:
            result = f"<tool_response>\n{text or ''}\n</tool_response>"
            if written and written[-1].get("role") == "user" and messages[index - 1].get("role") in RESULT:
                result = f"{written.pop()['content']}\n{result}"
            written.append({"role": "user", "content": result})
        else:
            written.append(message)
    return _with_instructions(tuple(written), instructions) if instructions else tuple(written)


def shorten_ids(messages: Messages) -> Messages:
    """The messages with ids of calls that are nine letters and digits long, as Mistral's templates ask."""
    return tuple(_shorten(message, index) for index, message in enumerate(messages))


def _shorten(message: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    shortened = dict(message)
    if isinstance(message.get("tool_call_id"), str):
        shortened["tool_call_id"] = _short(message["tool_call_id"])
    if calls := calls_of(message, index):
        shortened["tool_calls"] = [
            {
                "id": _short(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
    return shortened


def _short(identity: str) -> str:
    return _NOT_IN_IDS.sub("", identity)[-_SHORT_ID:].rjust(_SHORT_ID, "0")


def _with_calls(text: str, calls: Sequence[ToolCall]) -> str:
    written = (HERMES_SPELLING.write(call.name, call.arguments) for call in calls)
    return "\n".join((*([text] if text else []), *written))


def _with_instructions(messages: Messages, instructions: str) -> Messages:
    if messages and messages[0].get("role") in SYSTEM:
        own = text_of(messages[0], 0)
        content = f"{own}\n\n{instructions}" if own else instructions
        return ({**messages[0], "content": content}, *messages[1:])
    return ({"role": "system", "content": instructions}, *messages)
