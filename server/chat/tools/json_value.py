"""JSON that models write: its values, and where they end in text that comes in pieces."""

import json
from typing import Any, NoReturn

_DELIMITERS = frozenset(",]} \t\r\n")


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises `ValueError`, also for what Python alone takes for a number."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("the number is too large")
    return number


class JsonValue:
    """Finds where one JSON value ends. Brackets and strings are followed, nothing else is checked.

    An object, array or string ends with its last character; a number or word ends before the
    delimiter that follows it.
    """

    done: bool

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._in_word = False

    def push(self, text: str) -> int:
        """How many characters of `text` belong to the value; with `done` set, it ends there."""
        for place, char in enumerate(text):
            if self._in_word:
                if char in _DELIMITERS:
                    self.done = True
                    return place
            elif self._in_string:
                self._read_string(char)
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                self.done = self._depth <= 0
            elif self._depth == 0 and not char.isspace():
                self._in_word = True
            if self.done:
                return place + 1
        return len(text)

    def _read_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            self.done = self._depth == 0
