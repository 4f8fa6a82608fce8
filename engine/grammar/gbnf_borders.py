"""Where a regular part of a grammar ends: whether that can be told from the next character.

The sets are upper bounds. They are those of the construction of Glushkov (1961), without its positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.grammar.character_set import MAX_RANGES, CharacterSet
from engine.grammar.gbnf_nodes import (
    MAX_CODE_POINT,
    Alternation,
    CharacterClass,
    Concatenation,
    Literal,
    Node,
    Reference,
    Repetition,
    TokenMatch,
)

_NONE = CharacterSet()
_ALL = CharacterSet(((0, MAX_CODE_POINT),))


@dataclass(frozen=True, slots=True)
class Borders:
    """What a part's texts begin with, and what may make a longer one of them, of those of the part.

    `empty`: the part matches the empty text. `first`: the first characters of its texts. `more`: the
    characters that may follow one of its texts within another that is longer. `all`: all its characters.
    """

    empty: bool
    first: CharacterSet
    more: CharacterSet
    all: CharacterSet

    def then(self, other: "Borders") -> "Borders":
        """The borders of this part and another behind it."""
        everything = self.all | other.all
        first = self.first | other.first if self.empty else self.first
        if not self.ends_before(other):
            more = everything
        elif other.empty:
            more = self.more | other.first | other.more
        else:
            more = other.more
        return Borders(self.empty and other.empty, first, more, everything)

    def either(self, other: "Borders") -> "Borders":
        """The borders of this part or another in its place."""
        everything = self.all | other.all
        more = self.more | other.more if self.first.isdisjoint(other.first) else everything
        # the empty text of one is the beginning of each text of the other
        for part, beside in ((self, other), (other, self)):
            if part.empty:
                more = more | beside.first
        return Borders(self.empty or other.empty, self.first | other.first, more, everything)

    def repeated(self, minimum: int, maximum: int | None) -> "Borders":
        """The borders of so many of this part behind each other."""
        if maximum == 0:
            return EMPTY
        more = self.more
        if maximum != 1:
            more = more | self.first if self.ends_before(self) else self.all
        if minimum == 0:
            more = more | self.first
        return Borders(self.empty or minimum == 0, self.first, more, self.all)

    def ends_before(self, other: "Borders") -> bool:
        """Whether the first character of `other` tells that this part has ended."""
        return self.more.isdisjoint(other.first)


EMPTY = Borders(True, _NONE, _NONE, _NONE)
"""Of a part that matches only the empty text."""


def borders(node: Node, rules: dict[str, Borders]) -> Borders:
    """The borders of a regular node; `rules` holds those of all that it refers to."""
    match node:
        case Literal():
            if not node.text:
                return EMPTY
            everything = CharacterSet.of((ord(character), ord(character)) for character in node.text)
            code = ord(node.text[0])
            return Borders(False, CharacterSet(((code, code),)), _NONE, everything)
        case CharacterClass():
            characters = CharacterSet.of(node.ranges)
            if node.negated:
                # the complement of a set that was made larger would be too small
                characters = characters.complement() if len(node.ranges) <= MAX_RANGES else _ALL
            return Borders(False, characters, _NONE, characters)
        case Reference():
            return rules[node.name]
        case Repetition():
            return borders(node.item, rules).repeated(node.minimum, node.maximum)
        case Concatenation():
            return joined([borders(item, rules) for item in node.items])
        case TokenMatch():
            raise AssertionError("a token is no regular part")
        case Alternation():
            result = borders(node.options[0], rules)
            for option in node.options[1:]:
                result = result.either(borders(option, rules))
            return result


def joined(parts: Sequence[Borders]) -> Borders:
    """The borders of all parts, one behind the other."""
    result = EMPTY
    for part in parts:
        result = result.then(part)
    return result
