"""Anthropic's conversation as the messages that chats are made of. Pure; a part of `convert`."""

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from engine.errors import RequestError
from server.dialects.anthropic.schemas import Blocks, Turn

UNSEEN = ("image", "document", "audio", "video", "file")
"""Blocks that only a model with other senses than text can use."""

Block = dict[str, Any]
Message = dict[str, Any]
Placed = tuple[str, Block]
"""A block with its place in the request's body, for error messages."""


def to_messages(system: Blocks, turns: Iterable[Turn]) -> tuple[Message, ...]:
    """Messages in OpenAI's shape: thoughts as `reasoning_content`, results of tools as messages of their own.

    Neighbouring turns of one role count as one turn. Raises `RequestError` for blocks that the model
    cannot read, with their place.
    """
    messages: list[Message] = []
    if told := _text(_placed(system, "system")):
        messages.append({"role": "system", "content": told})
    names: dict[str, str] = {}
    numbered = enumerate(turns)
    for role, neighbours in groupby(numbered, key=lambda pair: pair[1].role):
        blocks = [
            block
            for number, turn in neighbours
            for block in _placed(turn.content, f"messages.{number}.content")
        ]
        if role == "assistant":
            messages.append(_assistant(blocks, names))
        else:
            messages += _others(role, blocks, names)
    return tuple(messages)


def _placed(content: Blocks, place: str) -> list[Placed]:
    if not content or isinstance(content, str):
        return [(place, {"type": "text", "text": content or ""})]
    return [(f"{place}.{index}", block) for index, block in enumerate(content)]


def _assistant(blocks: list[Placed], names: dict[str, str]) -> Message:
    """The message of an assistant's turn; `names` learns which call is of which tool."""
    texts: list[Placed] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for place, block in blocks:
        match block.get("type"):
            case "thinking":
                thoughts.append(_string(block, "thinking", place))
            case "redacted_thinking":
                pass  # nobody but Anthropic can read it
            case "tool_use":
                calls.append(_call(block, place))
                names[calls[-1]["id"]] = calls[-1]["function"]["name"]
            case _:
                texts.append((place, block))
    message: Message = {"role": "assistant", "content": _text(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Block, place: str) -> dict[str, Any]:
    arguments = block.get("input", {})
    if not isinstance(arguments, dict):
        raise RequestError(f"{place}.input: must be an object")
    function = {"name": _string(block, "name", place), "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": _string(block, "id", place), "type": "function", "function": function}


def _others(role: str, blocks: list[Placed], names: dict[str, str]) -> list[Message]:
    """The messages of a turn that is not the assistant's, in the order of its blocks."""
    messages: list[Message] = []
    for is_result, neighbours in groupby(blocks, key=lambda pair: pair[1].get("type") == "tool_result"):
        if is_result:
            messages += [_result(block, place, names) for place, block in neighbours]
        else:
            messages.append({"role": role, "content": _text(neighbours)})
    return messages


def _result(block: Block, place: str, names: dict[str, str]) -> Message:
    content = block.get("content", "")
    if not isinstance(content, str) and not _all_blocks(content):
        raise RequestError(f"{place}.content: must be text or a list of blocks")
    text = _text(_placed(content, f"{place}.content"))
    called = _string(block, "tool_use_id", place)
    message = {
        "role": "tool",
        "tool_call_id": called,
        "content": f"Error: {text}" if block.get("is_error") is True else text,
    }
    return message | ({"name": names[called]} if called in names else {})


def _all_blocks(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(block, dict) for block in content)


def _text(blocks: Iterable[Placed]) -> str:
    """The text of text blocks, each on a line of its own."""
    texts = []
    for place, block in blocks:
        kind = block.get("type")
        if kind in UNSEEN:
            raise RequestError(
                f"{place}: no model that sees or hears is loaded, so {kind} blocks are refused"
            )
        if kind != "text":
            raise RequestError(f"{place}: blocks of type {str(kind)[:40]!r} are not supported here")
        texts.append(_string(block, "text", place))
    return "\n".join(texts)


def _string(block: Block, name: str, place: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{place}.{name}: must be text")
    return value
