"""Anthropic's conversation as the messages that chats are made of. Pure; a part of `convert`."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from engine.errors import RequestError
from server.dialects.anthropic.schemas import Blocks, Turn
from server.wire.parts import kind_of, string_of, text_of_part, unknown_part
from server.wire.tools import Tell

LEFT_OUT = "blocks of this type are not known here, and the model sees at most their text"

Block = dict[str, Any]
Message = dict[str, Any]
Placed = tuple[str, Block]
"""A block with its place in the request's body, for error messages."""


def to_messages(system: Blocks, turns: Sequence[Turn], tell: Tell) -> tuple[Message, ...]:
    """Messages in OpenAI's shape: thoughts as `reasoning_content`, results of tools as messages of their own.

    Neighbouring turns of one role count as one turn. Of blocks of unknown types, which later versions of
    clients invent and send again with every request, the text is taken or nothing, and `tell` hears of it;
    in the question that ends the conversation they are refused. Raises `RequestError` for those, for known
    blocks that cannot be read and for media, with their place.
    """
    reader = _Reader(tell)
    if told := reader.text(_placed(system, "system")):
        reader.messages.append({"role": "system", "content": told})
    numbered = enumerate(turns)
    for role, neighbours in groupby(numbered, key=lambda pair: pair[1].role):
        blocks: list[Placed] = []
        for number, turn in neighbours:
            placed = _placed(turn.content, f"messages.{number}.content")
            if role == "user" and number == len(turns) - 1:
                _check_question(placed)
            blocks += placed
        if role == "assistant":
            reader.add_assistant(blocks)
        else:
            reader.add_other(role, blocks)
    return tuple(reader.messages)


def _check_question(blocks: list[Placed]) -> None:
    """Raise `RequestError` for a block of unknown type, unless a client answers calls of tools by itself."""
    if any(block.get("type") == "tool_result" for _, block in blocks):
        return
    for place, block in blocks:
        if _text_of(block, place) is None:
            raise unknown_part(block, place)


def _placed(content: Blocks, place: str) -> list[Placed]:
    if not content or isinstance(content, str):
        return [(place, {"type": "text", "text": content or ""})]
    return [(f"{place}.{index}", block) for index, block in enumerate(content)]


class _Reader:
    def __init__(self, tell: Tell) -> None:
        self.messages: list[Message] = []
        self._tell = tell
        self._names: dict[str, str] = {}
        """Which call is of which tool."""

    def add_assistant(self, blocks: list[Placed]) -> None:
        """The message of an assistant's turn."""
        texts: list[Placed] = []
        thoughts: list[str] = []
        calls: list[dict[str, Any]] = []
        for place, block in blocks:
            match block.get("type"):
                case "thinking":
                    thoughts.append(string_of(block, "thinking", place))
                case "redacted_thinking":
                    pass  # nobody but Anthropic can read it
                case "tool_use":
                    calls.append(_call(block, place))
                    self._names[calls[-1]["id"]] = calls[-1]["function"]["name"]
                case _:
                    texts.append((place, block))
        message: Message = {"role": "assistant", "content": self.text(texts)}
        if thoughts:
            message["reasoning_content"] = "\n".join(thoughts)
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)

    def add_other(self, role: str, blocks: list[Placed]) -> None:
        """The messages of a turn that is not the assistant's, in the order of its blocks."""
        for is_result, neighbours in groupby(blocks, key=lambda pair: pair[1].get("type") == "tool_result"):
            if is_result:
                self.messages += [self._result(block, place) for place, block in neighbours]
            else:
                self.messages.append({"role": role, "content": self.text(neighbours)})

    def text(self, blocks: Iterable[Placed]) -> str:
        """The text of text blocks, each on a line of its own."""
        texts = []
        for place, block in blocks:
            text = _text_of(block, place)
            if text is None:
                self._tell({f"a block of type {kind_of(block)}": LEFT_OUT})
                text = block.get("text")
            if isinstance(text, str):
                texts.append(text)
        return "\n".join(texts)

    def _result(self, block: Block, place: str) -> Message:
        content = block.get("content", "")
        if not isinstance(content, str) and not _all_blocks(content):
            raise RequestError(f"{place}.content: must be text or a list of blocks")
        text = self.text(_placed(content, f"{place}.content"))
        called = string_of(block, "tool_use_id", place)
        message = {
            "role": "tool",
            "tool_call_id": called,
            "content": f"Error: {text}" if block.get("is_error") is True else text,
        }
        return message | ({"name": self._names[called]} if called in self._names else {})


def _text_of(block: Block, place: str) -> str | None:
    """The text of a block; None for one of a type that is not known here. Raises `RequestError` for media."""
    source = block.get("source")
    if block.get("type") == "document" and isinstance(source, dict) and source.get("type") == "text":
        titles = (block.get("title"), block.get("context"))
        return "\n".join(
            [
                *(title for title in titles if isinstance(title, str)),
                string_of(source, "data", f"{place}.source"),
            ]
        )
    return text_of_part(block, place)


def _call(block: Block, place: str) -> dict[str, Any]:
    arguments = block.get("input", {})
    if not isinstance(arguments, dict):
        raise RequestError(f"{place}.input: must be an object")
    function = {
        "name": string_of(block, "name", place),
        "arguments": json.dumps(arguments, ensure_ascii=False),
    }
    return {"id": string_of(block, "id", place), "type": "function", "function": function}


def _all_blocks(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(block, dict) for block in content)
