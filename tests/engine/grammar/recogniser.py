"""What a grammar admits, by brute force: slow, independent of the engine's way, for short texts."""

from engine.grammar.gbnf_nodes import (
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


def recognises(rules: Rules, text: str, root: str = "root") -> bool:
    """Whether the rule `root` matches all of `text`."""
    # ends of the matches of each rule from each place, grown until nothing new is found
    ends: dict[tuple[str, int], set[int]] = {
        (name, at): set() for name in rules for at in range(len(text) + 1)
    }
    grown = True
    while grown:
        grown = False
        for (name, at), known in ends.items():
            found = _ends(rules[name], text, at, ends)
            grown = grown or not found <= known
            known |= found
    return len(text) in ends[root, 0]


def productive(rules: Rules) -> bool:
    """Whether each rule has a text. One that has none goes on without end."""
    known: set[str] = set()
    while True:
        found = {name for name, node in rules.items() if _has_text(node, known)}
        if found == known:
            return found == rules.keys()
        known = found


def _has_text(node: Node, known: set[str]) -> bool:
    match node:
        case Reference(name):
            return name in known
        case Alternation(options):
            return any(_has_text(option, known) for option in options)
        case Concatenation(items):
            return all(_has_text(item, known) for item in items)
        case Repetition(item, minimum, _):
            return minimum == 0 or _has_text(item, known)
        case _:
            return True


def _ends(node: Node, text: str, at: int, rules: dict[tuple[str, int], set[int]]) -> set[int]:
    match node:
        case Literal(literal):
            return {at + len(literal)} if text.startswith(literal, at) else set()
        case CharacterClass(ranges, negated):
            inside = at < len(text) and any(first <= ord(text[at]) <= last for first, last in ranges)
            return {at + 1} if at < len(text) and inside != negated else set()
        case Reference(name):
            return set(rules[name, at])
        case Alternation(options):
            return set().union(*(_ends(option, text, at, rules) for option in options))
        case Concatenation(items):
            return _chain(list(items), text, {at}, rules)
        case Repetition(item, minimum, maximum):
            reached = _chain([item] * minimum, text, {at}, rules)
            # more rounds than characters bring nothing new
            rounds = len(text) + 1 if maximum is None else min(maximum - minimum, len(text) + 1)
            found = set(reached)
            for _ in range(rounds):
                reached = _chain([item], text, reached, rules)
                found |= reached
            return found
        case TokenMatch():
            raise NotImplementedError("texts have no tokens")


def _chain(
    items: list[Node], text: str, starts: set[int], rules: dict[tuple[str, int], set[int]]
) -> set[int]:
    for item in items:
        starts = set().union(*(_ends(item, text, start, rules) for start in starts))
    return starts


def to_gbnf(rules: Rules) -> str:
    """The grammar as text."""
    return "".join(f"{name} ::= {_text(node)}\n" for name, node in rules.items())


def _text(node: Node) -> str:
    match node:
        case Literal(text):
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case CharacterClass(ranges, negated):
            inside = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
            return f"[{'^' if negated else ''}{inside}]" if ranges else "."
        case Reference(name):
            return name
        case Concatenation(items):
            return f"({' '.join(map(_text, items))})"
        case Alternation(options):
            return f"({' | '.join(map(_text, options))})"
        case Repetition(item, minimum, maximum):
            return f"{_text(item)}{{{minimum},{'' if maximum is None else maximum}}}"
        case TokenMatch(token, _, negated):
            return f"{'!' * negated}{token if isinstance(token, str) else f'<[{token}]>'}"
