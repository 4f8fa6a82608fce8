"""Reads llama.cpp's grammar notation (GBNF).

The notation is described in llama.cpp's `grammars/README.md`. One thing more is read than there: an
alternative may begin on a line of its own with `|`.
"""

import re

from engine.errors import RequestError
from engine.grammar.gbnf_nodes import (
    MAX_CODE_POINT,
    Alternation,
    CharacterClass,
    Concatenation,
    Literal,
    Node,
    Reference,
    Repetition,
    Rules,
    TokenMatch,
)

MAX_NESTING = 64
"""Groups within groups."""

MAX_REPETITIONS = 2000
"""The largest number in braces; llama.cpp has the same limit."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(r"<\[([0-9]{1,9})\]>|<(?!\[)[^>]{0,1000}>")
_NUMBER = re.compile(r"[0-9]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_ANY = CharacterClass((), negated=True)


def parse_gbnf(text: str) -> Rules:
    """The rules of a grammar; of two with the same name the later one counts, as in llama.cpp.

    Raises RequestError, one line that names the place.
    """
    return _Parser(text).rules()


def gbnf_error(text: str, at: int, what: str) -> RequestError:
    """The error to raise for the character `at` of a grammar; its line is counted from 1."""
    line = text.count("\n", 0, at) + 1
    return RequestError(f"the grammar is not valid GBNF: line {line}: {what}")


class _Parser:
    """Recursive descent over `_text` from `_at`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rules(self) -> Rules:
        rules: Rules = {}
        self._skip(lines=True)
        while self._at < len(self._text):
            name = self._name()
            self._skip()
            if not self._take("::="):
                raise self._error(f"expected ::= after the rule name {name!r}")
            self._skip(lines=True)
            # the later rule also takes the later place
            rules.pop(name, None)
            rules[name] = self._alternation(0)
            self._skip(lines=True)
        return rules

    def _alternation(self, nesting: int) -> Node:
        if nesting > MAX_NESTING:
            raise self._error(f"more than {MAX_NESTING} groups within each other")
        options = [self._concatenation(nesting)]
        while self._next_option():
            self._skip(lines=True)
            options.append(self._concatenation(nesting))
        return options[0] if len(options) == 1 else Alternation(tuple(options))

    def _next_option(self) -> bool:
        start = self._at
        self._skip(lines=True)
        if self._take("|"):
            return True
        self._at = start
        return False

    def _concatenation(self, nesting: int) -> Node:
        items: list[Node] = []
        while (node := self._item(nesting)) is not None:
            self._skip(lines=nesting > 0)
            items.append(self._repeated(node, nesting))
            self._skip(lines=nesting > 0)
        return items[0] if len(items) == 1 else Concatenation(tuple(items))

    def _item(self, nesting: int) -> Node | None:
        """The next literal, class, group or name; None where the sequence ends."""
        if self._take('"'):
            return self._literal()
        if self._take("["):
            return self._character_class()
        if self._take("."):
            return _ANY
        negated = self._text.startswith("!<", self._at)
        if negated or self._text.startswith("<", self._at):
            return self._token(negated)
        if self._take("("):
            self._skip(lines=True)
            group = self._alternation(nesting + 1)
            self._skip(lines=True)
            if not self._take(")"):
                raise self._error("expected )")
            return group
        if _NAME.match(self._text, self._at):
            at = self._at
            return Reference(self._name(), at)
        after = self._text[self._at : self._at + 1]
        if after in "*+?{" and after:
            raise self._error(f"nothing stands before {after}")
        if after not in ("", "|", "\r", "\n", ")") or (after == ")" and nesting == 0):
            raise self._error(f"unexpected {after!r}")
        return None

    def _token(self, negated: bool) -> Node:
        at = self._at
        self._at += negated
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise self._error("expected a token: its name in < and >, or its number in <[ and ]>")
        self._at = found.end()
        return TokenMatch(found[0] if found[1] is None else int(found[1]), at, negated)

    def _repeated(self, item: Node, nesting: int) -> Node:
        """`item` with the operators that follow it; each applies to all before it."""
        while True:
            if self._take("*"):
                item = Repetition(item, 0, None)
            elif self._take("+"):
                item = Repetition(item, 1, None)
            elif self._take("?"):
                item = Repetition(item, 0, 1)
            elif self._take("{"):
                item = self._counted(item)
            else:
                return item
            self._skip(lines=nesting > 0)

    def _counted(self, item: Node) -> Node:
        self._skip(lines=True)
        minimum = self._number()
        maximum: int | None = minimum
        self._skip(lines=True)
        if self._take(","):
            self._skip(lines=True)
            maximum = None if self._text.startswith("}", self._at) else self._number()
            self._skip(lines=True)
        if not self._take("}"):
            raise self._error("expected }")
        if maximum is not None and maximum < minimum:
            raise self._error(f"{{{minimum},{maximum}}} ends before it begins")
        return Repetition(item, minimum, maximum)

    def _literal(self) -> Node:
        characters = []
        while not self._take('"'):
            characters.append(self._character('a text is not closed with "'))
        return Literal("".join(characters))

    def _character_class(self) -> Node:
        negated = self._take("^")
        ranges = []
        while not self._take("]"):
            first = last = ord(self._character("a class is not closed with ]"))
            # a hyphen at the end stands for itself
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = ord(self._character("a class is not closed with ]"))
            if last < first:
                raise self._error(f"the range {chr(first)!r} to {chr(last)!r} is empty")
            ranges.append((first, last))
        if not ranges:
            raise self._error("a class is empty")
        return CharacterClass(tuple(ranges), negated)

    def _character(self, unclosed: str) -> str:
        character = self._text[self._at : self._at + 1]
        if not character:
            raise self._error(unclosed)
        self._at += 1
        if character != "\\":
            return self._scalar(ord(character))
        kind = self._text[self._at : self._at + 1]
        self._at += 1
        digits = _HEX_DIGITS.get(kind)
        if digits is None:
            if kind not in _ESCAPES:
                raise self._error(f"unknown escape \\{kind}")
            return _ESCAPES[kind]
        written = self._text[self._at : self._at + digits]
        if len(written) < digits or not re.fullmatch("[0-9A-Fa-f]+", written):
            raise self._error(f"\\{kind} needs {digits} hexadecimal digits")
        self._at += digits
        return self._scalar(int(written, 16))

    def _scalar(self, code: int) -> str:
        if code > MAX_CODE_POINT or 0xD800 <= code <= 0xDFFF:
            raise self._error(f"U+{code:04X} is no character")
        return chr(code)

    def _name(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._error("expected the name of a rule")
        self._at = match.end()
        return match.group()

    def _number(self) -> int:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise self._error("expected a number in braces")
        self._at = match.end()
        digits = match.group()
        # not int() first: it takes its time over millions of digits
        if len(digits) > 9 or int(digits) > MAX_REPETITIONS:
            raise self._error(f"more than {MAX_REPETITIONS} repetitions")
        return int(digits)

    def _take(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _skip(self, lines: bool = False) -> None:
        match = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _error(self, what: str) -> RequestError:
        return gbnf_error(self._text, self._at, what)
