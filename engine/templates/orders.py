"""The orders of messages that a template is tried with, until it takes one."""

from collections.abc import Iterable, Iterator
from typing import Any

Message = dict[str, Any]

_SYSTEM = ("system", "developer")


def orders(messages: list[Message]) -> Iterator[list[Message]]:
    """The messages as they are; then with roles that alternate; then without a system."""
    yield messages
    yield _alternating(messages)
    yield _without_system(messages)


def _alternating(messages: list[Message]) -> list[Message]:
    """At most one system message, at the start; then user and assistant in turn."""
    leading = next((i for i, message in enumerate(messages) if message["role"] not in _SYSTEM), len(messages))
    system = [_join("system", messages[:leading])] if leading else []
    turns: list[Message] = [] if messages[leading:] else [_join("user", [])]
    for message in messages[leading:]:
        role = "assistant" if message["role"] == "assistant" else "user"
        if not turns and role == "assistant":
            turns.append(_join("user", []))
        if turns and turns[-1]["role"] == role:
            turns[-1] = _join(role, [turns[-1], message])
        else:
            turns.append({**message, "role": role})
    return system + turns


def _without_system(messages: list[Message]) -> list[Message]:
    """The same for templates that know no system."""
    system, *turns = _alternating(messages)
    if system["role"] != "system":
        return [system, *turns]
    return [_join("user", [system, turns[0]]), *turns[1:]]


def _join(role: str, messages: Iterable[Message]) -> Message:
    texts = [message["content"] for message in messages]
    return {"role": role, "content": "\n\n".join(text for text in texts if text)}
