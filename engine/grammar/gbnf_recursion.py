"""Turns recursion that only repeats into repetition.

`ws ::= ([ \\t] ws)?` says no more than `ws ::= [ \\t]*`, but takes a parser that remembers each step. Rules
that call themselves at their end, or at their beginning, are common in grammars for llama.cpp.
"""

from engine.grammar.gbnf_nodes import (
    Alternation,
    Concatenation,
    Literal,
    Node,
    Reference,
    Repetition,
    Rules,
)

MAX_WAYS = 64
"""On which the parts beside them are repeated; a rule with more of them stays as it is."""

_EMPTY = Literal("")


def without_linear_recursion(rules: Rules) -> Rules:
    """The same rules, with `a ::= x a | y` as `a ::= x* y` and `a ::= a x | y` as `a ::= y x*`."""
    return {
        name: _unrolled(name, _unrolled(name, node, at_end=True), at_end=False)
        for name, node in rules.items()
    }


def _unrolled(name: str, node: Node, *, at_end: bool) -> Node:
    loops, exits = _paths(name, node, at_end=at_end)
    # a rule without a way out stays as it is: it has no text, and not the empty one
    if not loops or not exits:
        return node
    steps = [loop for loop in loops if loop != _EMPTY]
    parts = [Repetition(_choice(steps), 0, None)] if steps else []
    end = _choice(exits)
    return Concatenation((*parts, end) if at_end else (end, *parts))


def _paths(name: str, node: Node, *, at_end: bool) -> tuple[list[Node], list[Node]]:
    """What `node` matches, split in two: what stands beside the rule itself, and what it ends with."""
    match node:
        case Reference() if node.name == name:
            return [_EMPTY], []
        case Alternation():
            both = [_paths(name, option, at_end=at_end) for option in node.options]
            return [loop for loops, _ in both for loop in loops], [way for _, exits in both for way in exits]
        case Repetition(item, 0, 1):
            loops, exits = _paths(name, item, at_end=at_end)
            return (loops, [*exits, _EMPTY]) if loops else ([], [node])
        case Concatenation() if node.items:
            last = node.items[-1 if at_end else 0]
            loops, exits = _paths(name, last, at_end=at_end)
            if loops and len(loops) + len(exits) <= MAX_WAYS:
                rest = node.items[:-1] if at_end else node.items[1:]
                return [_beside(rest, way, at_end) for way in loops], [
                    _beside(rest, way, at_end) for way in exits
                ]
    return [], [node]


def _beside(rest: tuple[Node, ...], way: Node, at_end: bool) -> Node:
    if way == _EMPTY:
        items = rest
    else:
        inner = way.items if isinstance(way, Concatenation) else (way,)
        items = (*rest, *inner) if at_end else (*inner, *rest)
    return items[0] if len(items) == 1 else Concatenation(items)


def _choice(options: list[Node]) -> Node:
    return options[0] if len(options) == 1 else Alternation(tuple(options))
