"""Reads the messages of a chat, which clients write in OpenAI's shape. Trusts none of them."""

import json
from collections.abc import Mapping
from typing import Any

from engine.errors import RequestError
from server.chat.message import ToolCall

SYSTEM = ("system", "developer")
"""OpenAI's old and new name of the same role."""
RESULT = ("tool", "function")
"""OpenAI's new and old name of the role that reports what a function gave back."""


def role_of(message: Mapping[str, Any], index: int) -> str:
    """The role of message number `index`. Raises `RequestError` where it is no text."""
    role = message.get("role")
    if not isinstance(role, str):
        raise RequestError(f"message {index} has no role")
    return role


def text_of(message: Mapping[str, Any], index: int) -> str | None:
    """The content as text, the texts of parts joined; None where there is none.

    Raises `RequestError` for a content of another kind.
    """
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list | tuple):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "".join(text for text in texts if isinstance(text, str))
    raise RequestError(f"message {index} has a content that is neither text nor a list of parts")


def calls_of(message: Mapping[str, Any], index: int) -> tuple[ToolCall, ...]:
    """The calls of tools in an assistant's message; arguments given as an object become JSON text.

    Raises `RequestError` for calls that are not of OpenAI's shape.
    """
    calls = message.get("tool_calls")
    if calls is None:
        return ()
    if not isinstance(calls, list | tuple):
        raise RequestError(f"tool_calls of message {index} must be a list")
    return tuple(_call(call, index) for call in calls)


def _call(call: Any, index: int) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str):
        raise RequestError(f"tool_calls of message {index} must have a function with a name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    identity = call.get("id")
    return ToolCall(identity if isinstance(identity, str) else "", name, arguments or "{}")
