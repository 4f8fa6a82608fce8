"""The extent of a JSON value in text that comes in pieces."""

_DELIMITERS = frozenset(",]} \t\r\n")


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
