"""Calls as Python writes them: `[f(a="x", n=[1, None]), g()]`, LFM2's and MiniCPM's."""

import json
import re
from typing import Any

from server.chat.tools.blocks import Calls
from server.chat.tools.json_value import parse_json
from server.chat.tools.schemas import ArgumentTypes

MAX_DEPTH = 64
"""Lists and dicts within each other."""

_FENCE = re.compile(r"\s*```\w*\n(.*?)(?:```\s*)?", re.DOTALL)
_NAME = re.compile(r"[\s,;\[]*([\w./:-]+)\s*\(")
_KEY = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")
_WORD = re.compile(r"[^,()\[\]{}:]+")
_WORDS = {"True": True, "False": False, "None": None}
_QUOTES = re.compile(r"\\.|\"|'", re.DOTALL)
_ESCAPES = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_AFTER_TEXT = re.compile(r"\s*(?:[,)\]}:]|$)")


def parse_python(block: str, types: ArgumentTypes) -> Calls:
    """The calls in a block, also in a code fence, or as a JSON list of names and arguments.

    Quotes within a text that are not escaped, as templates write them, do not end it unless a comma or
    bracket follows. A block that is cut off gives the calls that are whole in it.
    """
    fenced = _FENCE.fullmatch(block)
    text = fenced[1] if fenced is not None else block
    if text.lstrip()[:1] in ("[", "{") and (found := _listed(text)) is not None:
        return found
    reader = _Reader(text)
    calls: Calls = []
    try:
        while (name := _NAME.match(text, reader.place)) is not None:
            reader.place = name.end()
            calls.append((name[1], types.mended(name[1], reader.arguments())))
    except _PythonError:
        pass
    return calls


def _listed(text: str) -> Calls | None:
    try:
        value = parse_json(text)
    except ValueError:
        return None
    calls = value if isinstance(value, list) else [value]
    found: Calls = []
    for call in calls:
        arguments = call.get("arguments", {}) if isinstance(call, dict) else None
        if not isinstance(arguments, dict) or not isinstance(call.get("name"), str):
            return None
        found.append((call["name"], arguments))
    return found


class _PythonError(Exception):
    """The text is no call."""


class _Reader:
    def __init__(self, text: str) -> None:
        self.place = 0
        self._text = text

    def arguments(self) -> dict[str, Any]:
        """What stands behind an opening bracket, which is closed. Raises `_PythonError`."""
        found: dict[str, Any] = {}
        while not self._take(")"):
            key = _KEY.match(self._text, self.place)
            if key is None:
                raise _PythonError
            self.place = key.end()
            found[key[1]] = self._value(0)
            self._take(",")
        return found

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _PythonError
        if self._take("["):
            return self._items("]", depth)
        if self._take("("):
            return self._items(")", depth)
        if self._take("{"):
            return self._pairs(depth)
        for quote in "\"'":
            if self._take(quote):
                return self._quoted(quote)
        word = _WORD.match(self._text, self.place)
        if word is None:
            raise _PythonError
        self.place = word.end()
        text = word[0].strip()
        if text in _WORDS:
            return _WORDS[text]
        try:
            return parse_json(text)
        except ValueError:
            return text

    def _items(self, end: str, depth: int) -> list[Any]:
        items = []
        while not self._take(end):
            items.append(self._value(depth + 1))
            self._take(",")
        return items

    def _pairs(self, depth: int) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        while not self._take("}"):
            key = self._value(depth + 1)
            if not self._take(":"):
                raise _PythonError
            pairs[key if isinstance(key, str) else json.dumps(key)] = self._value(depth + 1)
            self._take(",")
        return pairs

    def _quoted(self, quote: str) -> str:
        for found in _QUOTES.finditer(self._text, self.place):
            if found[0] == quote and _AFTER_TEXT.match(self._text, found.end()):
                raw, self.place = self._text[self.place : found.start()], found.end()
                return _ESCAPES.sub(_unescaped, raw)
        raise _PythonError

    def _take(self, text: str) -> bool:
        while self.place < len(self._text) and self._text[self.place].isspace():
            self.place += 1
        found = self._text.startswith(text, self.place)
        self.place += len(text) if found else 0
        return found


def _unescaped(found: re.Match[str]) -> str:
    escape = found[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _ESCAPED.get(escape, escape)
