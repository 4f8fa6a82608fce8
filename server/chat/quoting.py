"""Keeps what messages say from being read as control tokens.

A message that spells a control token, `<|im_end|>` for example, would end its own turn and begin another one,
a system's even. The prompt is one text, of which the template's own tokens must keep their meaning; so
those that messages spell get a mark that the tokenizer knows (`engine.types.QUOTE`).
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.types import QUOTE
from server.chat.call import Tool
from server.chat.history import text_of

Messages = tuple[Mapping[str, Any], ...]

_LARGE = 1 << 16
"""Characters of messages that are looked through in a thread: less takes some milliseconds at most."""


class Quoter:
    """Marks the names of control tokens in messages and tools.

    `kept`: tokens that an assistant's message may hold.
    """

    def __init__(self, names: Iterable[str], kept: Collection[str] = ()) -> None:
        """`names`: all control tokens of the model. One of a single letter is left alone."""
        known = {name for name in names if len(name) > 1}
        self._all = _starts_of(known)
        self._own = _starts_of(known.difference(kept))

    async def quoted(self, messages: Sequence[Mapping[str, Any]]) -> Messages:
        """The messages with marks. Contents in parts become one text: parts may make a name together."""
        if _size(messages) > _LARGE:
            return await asyncio.to_thread(self._quoted, messages)
        return self._quoted(messages)

    async def quoted_tools(self, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
        """The tools as prompts show them: descriptions and schemas with marks."""
        if self._all is None:
            return tools
        if _size([{"": tool.description, "schema": tool.parameters} for tool in tools]) > _LARGE:
            return await asyncio.to_thread(self._quoted_tools, tools)
        return self._quoted_tools(tools)

    def _quoted_tools(self, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
        starts = self._all
        assert starts is not None
        return tuple(
            replace(
                tool,
                description=_marked(tool.description, starts),
                parameters=_marked(tool.parameters, starts),
            )
            for tool in tools
        )

    def _quoted(self, messages: Sequence[Mapping[str, Any]]) -> Messages:
        return tuple(self._message(message, index) for index, message in enumerate(messages))

    def _message(self, message: Mapping[str, Any], index: int) -> Mapping[str, Any]:
        starts = self._own if message.get("role") == "assistant" else self._all
        if starts is None:
            return message
        whole = dict(message)
        if isinstance(message.get("content"), list | tuple):
            whole["content"] = text_of(message, index)
        return {key: _marked(value, starts) for key, value in whole.items()}


def _size(messages: Sequence[Mapping[str, Any]]) -> int:
    """Characters of all texts in the messages, as far as they are within each other in the usual way."""
    pending: list[Any] = list(messages)
    size = 0
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)
    return size


def _marked(value: Any, starts: re.Pattern[str]) -> Any:
    """A copy with marks in all texts. Without recursion: texts may lie as deep as JSON can be read."""
    root = [value]
    pending: list[tuple[Any, Any]] = [(root, 0)]
    while pending:
        holder, place = pending.pop()
        found = holder[place]
        if isinstance(found, str):
            holder[place] = starts.sub(_mark, found)
        elif isinstance(found, Mapping):
            copy = {starts.sub(_mark, key): child for key, child in found.items()}
            holder[place] = copy
            pending.extend((copy, key) for key in copy)
        elif isinstance(found, list | tuple):
            holder[place] = children = list(found)
            pending.extend((children, index) for index in range(len(children)))
    return root[0]


def _mark(found: re.Match[str]) -> str:
    return found[0] + QUOTE


def _starts_of(names: Collection[str]) -> re.Pattern[str] | None:
    """Finds the first letter of each name, also of one that begins within another."""
    if not names:
        return None
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for letter in name:
            node = node.setdefault(letter, {})
        node[""] = {}
    return re.compile(f"(?s)(?={_written(tree)}).")


def _written(node: dict[str, Any]) -> str:
    """The branches of a tree of letters; a shorter name within a longer one is enough."""
    if "" in node:
        return ""
    branches = []
    for letter, child in node.items():
        run = letter
        while len(child) == 1 and "" not in child:
            [(letter, child)] = child.items()
            run += letter
        branches.append(re.escape(run) + _written(child))
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
