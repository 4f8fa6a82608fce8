"""Calls whose arguments are no JSON: tags round each argument, or Gemma's braces.

Each parser is given a block without its opening and end tags. A block that is cut off gives what is whole
in it.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from server.chat.tools.json_value import parse_json
from server.chat.tools.schemas import ArgumentTypes

MAX_DEPTH = 64
"""Objects and arrays within each other, in Gemma's syntax."""

Calls = list[tuple[str, Mapping[str, Any]]]

_XML_NAME = re.compile(r"\s*[\"']?([^\s\"'<>]+)[\"']?\s*>")
_XML_ARGUMENT = re.compile(r"<parameter(?:=|\s+name=)[\"']?([^\"'<>]*[^\"'<>\s])[\"']?\s*+>")
_GLM_NAME = re.compile(r"\s*([\w./:-]+)\s*(?=<|$)")
_GLM_ARGUMENT = re.compile(r"<arg_key>([^<]*)</arg_key>\s*<arg_value>")
_GEMMA_NAME = re.compile(r"\s*+(?:call:)?\s*+([\w./:-]+?)\s*+(?={)")
_WORD = re.compile(r"[^,{}\[\]]*")


def parse_xml(block: str, types: ArgumentTypes) -> Calls:
    """`NAME><parameter=KEY>VALUE</parameter>...`, also with `name="KEY"`: Qwen3-Coder's and MiniMax's."""
    return _tagged(block, _XML_NAME, _XML_ARGUMENT, "</parameter>", types)


def parse_glm(block: str, types: ArgumentTypes) -> Calls:
    """`NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>...`, blanks between: GLM's from 4.5 on."""
    return _tagged(block, _GLM_NAME, _GLM_ARGUMENT, "</arg_value>", types)


def _tagged(
    block: str, name: re.Pattern[str], argument: re.Pattern[str], end: str, types: ArgumentTypes
) -> Calls:
    found = name.match(block)
    if found is None:
        return []
    arguments: dict[str, Any] = {}
    place = found.end()
    while (opening := argument.search(block, place)) and (stop := block.find(end, opening.end())) >= 0:
        # one line end on each side belongs to the layout
        value = block[opening.end() : stop].removeprefix("\n").removesuffix("\n")
        key = opening[1].strip()
        arguments[key] = types.typed(found[1], key, value)
        place = stop + len(end)
    return [(found[1], arguments)]


def parse_keyed(block: str) -> Calls:
    """`[{"NAME": {ARGUMENTS}}, ...]`: Apertus's. A list that is cut off gives nothing."""
    try:
        found = parse_json(block)
    except ValueError:
        return []
    items = found if isinstance(found, list) else [found]
    pairs = [pair for item in items if isinstance(item, dict) for pair in item.items()]
    return [(name, arguments if isinstance(arguments, dict) else {}) for name, arguments in pairs]


def parse_actions(block: str) -> Calls:
    """A JSON list of actions in a code fence: Command R's. The one that says to answer is no call."""
    try:
        found = parse_json(block)
    except ValueError:
        return []
    actions = found if isinstance(found, list) else [found]
    calls: Calls = []
    for action in actions:
        name = action.get("tool_name") if isinstance(action, dict) else None
        if isinstance(name, str) and name.replace("_", "-") != "directly-answer":
            parameters = action.get("parameters")
            calls.append((name, parameters if isinstance(parameters, dict) else {}))
    return calls


def parse_gemma(block: str, quote: str) -> Calls:
    """`call:NAME{KEY:VALUE,...}`; text stands between two `quote` tags. Nothing if the braces do not fit."""
    found = _GEMMA_NAME.match(block)
    if found is None:
        return []
    try:
        arguments = _Braces(block, found.end(), quote).value(0)
    except _BracesError:
        return []
    return [(found[1], arguments)] if isinstance(arguments, dict) else []


class _BracesError(Exception):
    """The text is not what braces hold."""


class _Braces:
    """A value in Gemma's syntax: JSON with bare keys and other quotes."""

    def __init__(self, text: str, place: int, quote: str) -> None:
        self._text = text
        self._place = place
        self._quote = quote

    def value(self, depth: int) -> Any:
        """The value at this place. Raises `_BracesError`."""
        if depth > MAX_DEPTH:
            raise _BracesError
        if self._take(self._quote):
            return self._until(self._quote)
        if self._take("{"):
            return dict(self._items("}", lambda: self._pair(depth + 1)))
        if self._take("["):
            return self._items("]", lambda: self.value(depth + 1))
        if self._text.startswith('"', self._place):
            return self._json_string()
        return self._word()

    def _word(self) -> Any:
        """A number, a literal, or text without quotes."""
        word = _WORD.match(self._text, self._place)
        assert word is not None
        self._place = word.end()
        text = word[0].strip()
        try:
            return parse_json(text)
        except ValueError:
            return text

    def _pair(self, depth: int) -> tuple[str, Any]:
        if self._take(self._quote):
            key = self._until(self._quote)
        elif self._text.startswith('"', self._place):
            key = self._json_string()
        else:
            end = self._text.find(":", self._place)
            key, self._place = self._text[self._place : end].strip(), max(end, self._place)
        if not self._take(":"):
            raise _BracesError
        return key, self.value(depth)

    def _items(self, end: str, read: Callable[[], Any]) -> list[Any]:
        items: list[Any] = []
        while not self._take(end):
            if items and not self._take(","):
                raise _BracesError
            self._skip_blanks()
            if self._place >= len(self._text):
                raise _BracesError
            items.append(read())
        return items

    def _take(self, text: str) -> bool:
        self._skip_blanks()
        found = self._text.startswith(text, self._place)
        self._place += len(text) if found else 0
        return found

    def _skip_blanks(self) -> None:
        while self._place < len(self._text) and self._text[self._place].isspace():
            self._place += 1

    def _until(self, end: str) -> str:
        place = self._text.find(end, self._place)
        if place < 0:
            raise _BracesError
        text, self._place = self._text[self._place : place], place + len(end)
        return text

    def _json_string(self) -> str:
        try:
            text, self._place = json.JSONDecoder().raw_decode(self._text, self._place)
        except ValueError:
            raise _BracesError from None
        return str(text)
