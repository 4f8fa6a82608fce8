"""Readers of one call: from the text after a call's opening tag to its name and its arguments.

A reader takes text in pieces of any size and gives the same call whatever the pieces. It ends `done`, at
the first character after the call, or `failed`, when the text turns out to be no call or to go wrong in it.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from server.chat.tools.json_value import JsonValue, parse_json
from server.chat.tools.schemas import ArgumentTypes

MAX_HEADER = 512
"""Characters before the arguments; more are no header."""


@dataclass(frozen=True, slots=True)
class CallPart:
    """More of a call. `name`: a new call begins. `arguments`: more of their JSON text."""

    name: str | None
    arguments: str = ""


class CallReader(ABC):
    """The contract of all readers. Whether a call is `done` or has `failed` shows after each `push`."""

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._parts: list[CallPart] = []

    @abstractmethod
    def push(self, text: str) -> str:
        """Take text in; what lies behind the end of the call, or behind what was read of it, comes back."""

    @abstractmethod
    def finish(self) -> None:
        """The reply has ended inside the call: give what is known of it, where that was not given yet."""

    def take(self) -> list[CallPart]:
        """What was found since the last time."""
        parts, self._parts = self._parts, []
        return parts


class NamedReader(CallReader):
    """A header that names the tool, then the arguments as a JSON object, which stream.

    `header`: a pattern with one group, the name, for all the text before the object's brace.
    """

    def __init__(self, header: re.Pattern[str]) -> None:
        super().__init__()
        self._pattern = header
        self._header = ""
        self._value: JsonValue | None = None

    def push(self, text: str) -> str:
        """See `CallReader`."""
        if self._value is None:
            self._header += text
            header, brace, rest = self._header.partition("{")
            if not brace and len(header) < MAX_HEADER:
                return ""
            match = self._pattern.fullmatch(header.strip()) if len(header) < MAX_HEADER else None
            if match is None:
                self.failed = True
                return ""
            self._value = JsonValue()
            self._parts.append(CallPart(match[1]))
            text = brace + rest
        end = self._value.push(text)
        self._parts.append(CallPart(None, text[:end]))
        self.done = self._value.done
        return text[end:]

    def finish(self) -> None:
        """All that is known was given as it came."""


class BlockReader(CallReader):
    """Everything up to an end tag, which a function of the whole block understands.

    `parse` gives names and arguments, also of a block that lacks its end as far as it is whole.
    """

    def __init__(
        self,
        end: str,
        parse: Callable[[str], list[tuple[str, Mapping[str, Any]]]],
        *,
        may_be_empty: bool = False,
    ) -> None:
        """`may_be_empty`: a block without a call is no text either."""
        super().__init__()
        self._end = end
        self._may_be_empty = may_be_empty
        self._parse = parse
        self._block = ""

    def push(self, text: str) -> str:
        """See `CallReader`."""
        searched = max(0, len(self._block) - len(self._end) + 1)
        self._block += text
        place = self._block.find(self._end, searched)
        if place < 0:
            return ""
        rest, self._block = self._block[place + len(self._end) :], self._block[:place]
        self.done = True
        self.finish()
        self.failed = not self._parts and not self._may_be_empty
        return "" if self.failed else rest

    def finish(self) -> None:
        """See `CallReader`."""
        for name, arguments in self._parse(self._block):
            self._parts.append(CallPart(name, json.dumps(arguments, ensure_ascii=False)))


class _Place(Enum):
    """What an `EnvelopeReader` expects next."""

    START = auto()
    ITEM = auto()
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    AFTER_VALUE = auto()
    AFTER_ITEM = auto()


class EnvelopeReader(CallReader):
    """JSON objects with a name and arguments, one or a list of them.

    The arguments stream. With `types` they do not: then each call is given when it is whole, its tool is
    known and its JSON right, and otherwise the reader fails; that is for text that nothing held to the
    format.
    """

    def __init__(self, types: ArgumentTypes | None = None) -> None:
        super().__init__()
        self._types = types
        self._place = _Place.START
        self._listed = False
        self._key = ""
        self._value = JsonValue()
        self._text = ""
        self._name: str | None = None
        self._arguments = ""
        self._opened = False

    def push(self, text: str) -> str:
        """See `CallReader`."""
        while text and not self.done and not self.failed:
            if self._place in (_Place.KEY, _Place.VALUE) and (self._text or not text[0].isspace()):
                text = self._read_value(text)
            else:
                self._read_mark(text[0])
                text = text if self.failed else text[1:]
        return text

    def finish(self) -> None:
        """See `CallReader`."""
        inside = self._place not in (_Place.START, _Place.ITEM, _Place.AFTER_ITEM)
        if inside and self._types is not None and self._name is not None and self._types.knows(self._name):
            self._parts.append(CallPart(self._name, self._arguments))

    def _read_mark(self, char: str) -> None:
        if char.isspace():
            return
        match self._place, char:
            case ((_Place.START | _Place.ITEM), "{"):
                self._place = _Place.KEY
                self._name, self._arguments, self._opened = None, "", False
            case _Place.START, "[":
                self._listed, self._place = True, _Place.ITEM
            case _Place.COLON, ":":
                self._place = _Place.VALUE
            case _Place.AFTER_VALUE, ",":
                self._place = _Place.KEY
            case _Place.AFTER_VALUE, "}":
                self._end_call()
            case _Place.AFTER_ITEM, ",":
                self._place = _Place.ITEM
            case _Place.AFTER_ITEM, "]":
                self.done = True
            case _:
                self.failed = True

    def _read_value(self, text: str) -> str:
        if self._place is _Place.KEY and not self._text and text[0] != '"':
            self.failed = True
            return text
        end = self._value.push(text)
        piece, rest = text[:end], text[end:]
        self._text += piece
        if self._place is _Place.VALUE and self._key in _ARGUMENT_KEYS and self._text[0] == "{":
            self._arguments += piece
            self._stream()
        if self._value.done:
            self._end_value()
        return rest

    def _end_value(self) -> None:
        text, self._text, self._value = self._text, "", JsonValue()
        if self._place is _Place.KEY:
            self._key, self._place = _string(text) or "", _Place.COLON
            return
        self._place = _Place.AFTER_VALUE
        if self._key in _NAME_KEYS:
            self._name = _string(text)
            self.failed = self._name is None
        elif self._key in _ARGUMENT_KEYS and text[0] != "{":
            # some models write the object as text, or null where a tool takes nothing
            inner = _string(text)
            self._arguments = "" if text == "null" else text if inner is None else inner
        self._stream()

    def _stream(self) -> None:
        """Give what is there, once the name is known."""
        if self._name is None or self._types is not None:
            return
        if not self._opened:
            self._parts.append(CallPart(self._name))
            self._opened = True
        if self._arguments:
            self._parts.append(CallPart(None, self._arguments))
            self._arguments = ""

    def _end_call(self) -> None:
        self._place = _Place.AFTER_ITEM
        self.done = not self._listed
        if self._name is None:
            self.failed = True
        elif self._types is not None:
            arguments = _object(self._arguments or "{}")
            if arguments is None or not self._types.knows(self._name):
                self.failed = True
            else:
                mended = self._types.mended(self._name, arguments)
                self._parts.append(CallPart(self._name, json.dumps(mended, ensure_ascii=False)))


_NAME_KEYS = ("name", "tool_name")
_ARGUMENT_KEYS = ("arguments", "parameters")


def _string(text: str) -> str | None:
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
