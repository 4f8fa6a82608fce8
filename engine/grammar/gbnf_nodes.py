"""The parts of a rule in llama.cpp's grammar notation (GBNF)."""

from dataclasses import dataclass
from typing import TypeAlias

MAX_CODE_POINT = 0x10FFFF


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, character by character. The empty text matches nothing at all, which is a match."""

    text: str


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """One character: in one of `ranges` (first and last code point, both included), or `negated` in none."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """One token of the vocabulary, by its id or its name; `negated`, any other that has a text.

    `at` is where the text says so, in characters from its beginning.
    """

    token: int | str
    at: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """What the rule `name` matches. `at` is where the text says so, in characters from its beginning."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Concatenation:
    """All of `items`, one after the other."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of `options`."""

    options: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """`item` at least `minimum` and at most `maximum` times; None is without end."""

    item: "Node"
    minimum: int
    maximum: int | None


Node: TypeAlias = Literal | CharacterClass | TokenMatch | Reference | Concatenation | Alternation | Repetition
Rules: TypeAlias = dict[str, Node]
"""The rules of a grammar by name, in the order of the text."""


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below `node`, in the order of the text."""
    match node:
        case Concatenation():
            return node.items
        case Alternation():
            return node.options
        case Repetition():
            return (node.item,)
        case _:
            return ()
