"""The forms of the same messages that a template is tried with, until it shows what they say.

Templates were written for one form or the other: arguments of calls as objects or as JSON text, contents as
text or as lists of parts. One for another form raises an error, or writes something else without one.
"""

import json
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]


def forms(messages: list[Message], source: str) -> Iterator[list[Message]]:
    """The messages as they are; then with arguments as text; then with contents in parts."""
    written = [_with_text(message) for message in messages]
    yield messages
    if written != messages:
        yield written
    # parts have types, which a template that knows of parts looks at
    if "type" in source and any(message["content"] for message in messages):
        yield [_in_parts(message) for message in messages]
        if written != messages:
            yield [_in_parts(message) for message in written]


def is_faithful(text: str, messages: list[Message]) -> bool:
    """Whether the text has what the last user said, and the last arguments not as Python writes objects."""
    asked = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if asked is not None and _said(asked).strip() not in text:
        return False
    last = next((found[-1] for message in reversed(messages) if (found := _objects(message))), None)
    return last is None or repr(last) not in text


def _said(message: Message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _objects(message: Message) -> list[dict[str, Any]]:
    """The arguments of calls that are objects with members, which Python writes otherwise than JSON."""
    arguments = (call["function"].get("arguments") for call in _calls(message))
    return [value for value in arguments if isinstance(value, dict) and value]


def _calls(message: Message) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    return [call for call in calls if isinstance(call, dict) and isinstance(call.get("function"), dict)]


def _with_text(message: Message) -> Message:
    if not _calls(message):
        return message
    return {**message, "tool_calls": [_call_with_text(call) for call in message["tool_calls"]]}


def _call_with_text(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
        return call
    return {
        **call,
        "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)},
    }


def _in_parts(message: Message) -> Message:
    text = message["content"]
    return {**message, "content": [{"type": "text", "text": text}]}
