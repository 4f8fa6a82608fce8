"""Turns llama.cpp's grammar notation (GBNF) into Lark.

Apart from tokens, which are rules of their own, GBNF knows only characters. llguidance is fast where many
of them are one terminal, so all that is regular becomes terminals: a rule that cannot come back to itself,
and the regular parts of the others. A grammar without recursion is one terminal. The lexer takes the
longest match of all terminals that may stand at a place. Neighbours are therefore one terminal unless the
next character tells where the first of them ends. What a grammar admits only by ending a terminal where
another one goes on is not generated; nothing is generated that the grammar does not admit.

Every group gets a name of its own, because llguidance bounds the nesting of brackets and follows
names by recursion on the machine's stack; `MAX_DEPTH` keeps that bounded.
"""

from collections.abc import Iterable, Mapping

from engine.errors import RequestError
from engine.grammar import lark
from engine.grammar.gbnf_borders import EMPTY, Borders, borders
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
    children,
)
from engine.grammar.gbnf_parser import gbnf_error, parse_gbnf
from engine.grammar.gbnf_recursion import without_linear_recursion
from engine.grammar.tokens import GrammarTokens

ROOT = "root"
MAX_DEPTH = 250
"""Names that lead to names. llguidance needs about 5 KiB of stack for each."""

MAX_TOKENS = 256
"""Different tokens that a grammar names: each one that is negated lists nearly the whole vocabulary."""

MAX_ALTERNATIVES = 600
"""Of all rules that are no terminals. The time for a step can grow with the cube of their number."""


def gbnf_to_lark(text: str, tokens: GrammarTokens) -> str:
    """The same grammar in Lark, with the vocabulary's numbers for tokens.

    Raises RequestError, one line, for what is not valid or nests too deeply.
    """
    rules = parse_gbnf(text)
    if ROOT not in rules:
        raise RequestError("the grammar has no rule root")
    for node in rules.values():
        for reference in _references(node):
            if reference.name not in rules:
                raise gbnf_error(text, reference.at, f"there is no rule {reference.name!r}")
    writer = _Writer(without_linear_recursion(rules), _known_tokens(text, rules, tokens))
    writer.write()
    return writer.lark()


def _references(node: Node) -> Iterable[Reference]:
    """All references below `node`, in the order of the text; the parser bounds the nesting."""
    if isinstance(node, Reference):
        yield node
    for child in children(node):
        yield from _references(child)


def _tokens(node: Node) -> Iterable[TokenMatch]:
    """All tokens below `node`."""
    if isinstance(node, TokenMatch):
        yield node
    for child in children(node):
        yield from _tokens(child)


def _known_tokens(text: str, rules: Rules, tokens: GrammarTokens) -> dict[tuple[int | str, bool], str]:
    """Each token that the rules name, or all others, in Lark."""
    known: dict[tuple[int | str, bool], str] = {}
    for match in (found for node in rules.values() for found in _tokens(node)):
        if (match.token, match.negated) in known:
            continue
        token_id = tokens.find(match.token)
        if token_id is None:
            raise gbnf_error(text, match.at, f"the model has no token {match.token!r}")
        if len(known) == MAX_TOKENS:
            raise gbnf_error(text, match.at, f"there are more than {MAX_TOKENS} tokens")
        written = lark.one_of(tokens.others(token_id)) if match.negated else lark.token(token_id)
        known[match.token, match.negated] = written
    return known


def _regular_rules(rules: Rules) -> list[str]:
    """The names of the rules from which no way leads to a cycle or a token, each behind those it needs."""
    waiting = {name: {reference.name for reference in _references(node)} for name, node in rules.items()}
    # a rule with a token waits for itself, without end
    waiting = {
        name: needed | {name} if any(_tokens(rules[name])) else needed for name, needed in waiting.items()
    }
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, needed in waiting.items():
        for other in needed:
            users[other].append(name)
    regular = [name for name, needed in waiting.items() if not needed]
    for done in regular:
        for user in users[done]:
            waiting[user].discard(done)
            if not waiting[user]:
                regular.append(user)
    return regular


class _Writer:
    """Collects definitions: a name, and the line that says what it is."""

    def __init__(self, rules: Rules, tokens: Mapping[tuple[int | str, bool], str]) -> None:
        self._rules = rules
        self._tokens = {key: f"k{number}" for number, key in enumerate(tokens)}
        self._regular: dict[str, Borders] = {}
        for name in _regular_rules(rules):
            self._regular[name] = borders(rules[name], self._regular)
        self._groups = 0
        self._alternatives = 0
        self._bodies = dict(zip(self._tokens.values(), tokens.values(), strict=True))
        self._uses: dict[str, list[str]] = {name: [] for name in self._bodies}
        self._names: dict[str, str] = {}
        self._terminals: dict[str, str] = {}
        self._pending: list[str] = []

    def write(self) -> None:
        """Define the root and everything that it needs."""
        start = self._rule_name(ROOT)
        while self._pending:
            name = self._pending.pop()
            self._define(self._names[name], self._rules[name], regular=name in self._regular)
        self._bodies[lark.START] = start
        self._uses[lark.START] = [start]

    def lark(self) -> str:
        """The text of the grammar. Raises RequestError if it would take too much stack or time."""
        if self._alternatives > MAX_ALTERNATIVES:
            raise RequestError(
                f"the grammar's recursive rules have more than {MAX_ALTERNATIVES} alternatives"
            )
        _check_depth(self._uses)
        lines = [f"{name}: {body}" for name, body in self._bodies.items()]
        # what a grammar leaves no choice about may go on without end, and llguidance would follow it
        return "\n".join([lark.HEADER_UNFORCED, *lines, ""])

    def _rule_name(self, rule: str) -> str:
        name = self._names.get(rule)
        if name is None:
            name = f"{'T' if rule in self._regular else 'r'}{len(self._names)}"
            self._names[rule] = name
            self._pending.append(rule)
        return name

    def _define(self, name: str, node: Node, *, regular: bool) -> None:
        # reserves the place, so that the definitions stand in the order of their first use
        uses = self._uses[name] = []
        self._bodies[name] = ""
        write = self._terminal if regular else self._rule
        self._bodies[name] = write(node, uses)

    def _group(self, node: Node, uses: list[str], *, regular: bool) -> str:
        """The name of a definition for `node`; equal terminals share one."""
        name = f"{'G' if regular else 'g'}{self._groups}"
        self._groups += 1
        self._define(name, node, regular=regular)
        if regular:
            key = self._bodies[name]
            shared = self._terminals.setdefault(key, name)
            if shared != name:
                del self._bodies[name], self._uses[name]
                name = shared
        uses.append(name)
        return name

    def _terminal(self, node: Node, uses: list[str]) -> str:
        """The body of a terminal; `uses` gains the names in it."""
        match node:
            case Alternation():
                return " | ".join(self._sequence(option, uses, regular=True) for option in node.options)
            case _:
                return self._sequence(node, uses, regular=True)

    def _rule(self, node: Node, uses: list[str]) -> str:
        """The body of a rule; its regular options are one terminal."""
        if not isinstance(node, Alternation):
            return self._sequence(node, uses, regular=False)
        options: list[str] = []
        plain = tuple(option for option in node.options if self._is_regular(option))
        for option in node.options:
            if not self._is_regular(option):
                options.append(self._sequence(option, uses, regular=False))
            elif option is plain[0]:
                options.append(self._lexeme(Alternation(plain) if len(plain) > 1 else option, uses))
        self._alternatives += len(options)
        return " | ".join(options)

    def _sequence(self, node: Node, uses: list[str], *, regular: bool) -> str:
        items = node.items if isinstance(node, Concatenation) else (node,)
        parts: list[str] = []
        run: list[Node] = []
        for item in items:
            if not regular and self._is_regular(item):
                run.append(item)
                continue
            parts += self._run(run, uses)
            run.clear()
            parts.append(self._repeated(item, uses, regular=regular))
        parts += self._run(run, uses)
        return " ".join(parts) or '""'

    def _run(self, nodes: list[Node], uses: list[str]) -> list[str]:
        """Regular neighbours within a rule as terminals, as few together as their borders allow."""
        sides = [borders(node, self._regular) for node in nodes]
        ahead = [side.first for side in sides]
        for at in reversed(range(len(nodes) - 1)):
            if sides[at].empty:
                ahead[at] = ahead[at] | ahead[at + 1]
        parts: list[list[Node]] = []
        last = EMPTY
        for at, (node, side) in enumerate(zip(nodes, sides, strict=True)):
            if parts and not last.more.isdisjoint(ahead[at]):
                parts[-1].append(node)
                last = last.then(side)
            else:
                parts.append([node])
                last = side
        return [
            self._lexeme(part[0] if len(part) == 1 else Concatenation(tuple(part)), uses) for part in parts
        ]

    def _lexeme(self, node: Node, uses: list[str]) -> str:
        """A regular node within a rule, as one terminal."""
        # a terminal that can only be empty would never be met by the lexer
        if not borders(node, self._regular).all.ranges:
            return '""'
        if isinstance(node, Reference):
            return self._atom(node, uses, regular=True)
        return self._group(node, uses, regular=True)

    def _repeated(self, node: Node, uses: list[str], *, regular: bool) -> str:
        if not isinstance(node, Repetition):
            return self._atom(node, uses, regular=regular)
        if node.maximum == 0:
            return '""'
        item = self._atom(node.item, uses, regular=regular)
        match node.minimum, node.maximum:
            case 0, None:
                return f"{item}*"
            case 1, None:
                return f"{item}+"
            case 0, 1:
                return f"{item}?"
            case minimum, maximum:
                return f"{item}{{{minimum},{'' if maximum is None else maximum}}}"

    def _atom(self, node: Node, uses: list[str], *, regular: bool) -> str:
        match node:
            case Literal():
                return lark.quote(node.text)
            case CharacterClass():
                return _class(node)
            case TokenMatch():
                uses.append(self._tokens[node.token, node.negated])
                return uses[-1]
            case Reference():
                name = self._rule_name(node.name)
                uses.append(name)
                return name
            case _:
                return self._group(node, uses, regular=regular)

    def _is_regular(self, node: Node) -> bool:
        known = all(reference.name in self._regular for reference in _references(node))
        return known and not any(_tokens(node))


def _class(node: CharacterClass) -> str:
    if not node.ranges:
        return lark.regex("(?s:.)")
    ranges = "".join(
        lark.code_point(first) if first == last else f"{lark.code_point(first)}-{lark.code_point(last)}"
        for first, last in node.ranges
    )
    return lark.regex(f"[{'^' if node.negated else ''}{ranges}]")


def _check_depth(uses: Mapping[str, list[str]]) -> None:
    """Follow the names as llguidance does: depth first, in order, each once."""
    seen = {lark.START}
    path = [iter(uses[lark.START])]
    while path:
        name = next(path[-1], None)
        if name is None:
            path.pop()
        elif name not in seen:
            seen.add(name)
            path.append(iter(uses[name]))
            if len(path) > MAX_DEPTH:
                raise RequestError(f"the grammar's rules lead more than {MAX_DEPTH} deep into each other")
