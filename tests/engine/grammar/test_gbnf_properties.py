"""Random grammars over two letters against the brute-force recogniser."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.grammar import GrammarState
from engine.grammar.gbnf_borders import Borders, borders, joined
from engine.grammar.gbnf_nodes import (
    Alternation,
    CharacterClass,
    Concatenation,
    Literal,
    Node,
    Reference,
    Repetition,
    Rules,
)
from engine.grammar.gbnf_recursion import without_linear_recursion
from engine.types import GbnfGrammar
from tests.engine.grammar.recogniser import productive, recognises, to_gbnf
from tests.engine.grammar.walks import BYTE_PAIRS, COMPILERS, allowed

LETTERS = "ab"
TOKENS = {letter: BYTE_PAIRS.encode(letter, add_bos=False)[0] for letter in LETTERS}
SHORT = ["".join(letters) for length in range(4) for letters in product(LETTERS, repeat=length)]
"""All texts of up to three letters."""

COMPILER = COMPILERS[id(BYTE_PAIRS)]

literals = st.text(LETTERS, max_size=3).map(Literal)
classes = st.sampled_from(
    [CharacterClass(((97, 97),)), CharacterClass(((97, 98),)), CharacterClass(((97, 97),), negated=True)]
)
counts = st.sampled_from([(0, 1), (0, None), (1, None), (2, 2), (0, 2), (1, 3)])


def nodes(names: list[str]) -> st.SearchStrategy[Node]:
    leaves: st.SearchStrategy[Node] = literals | classes
    if names:
        leaves |= st.sampled_from(names).map(lambda name: Reference(name, 0))
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, min_size=2, max_size=3).map(lambda items: Concatenation(tuple(items)))
            | st.lists(inner, min_size=2, max_size=3).map(lambda options: Alternation(tuple(options)))
            | st.builds(lambda item, count: Repetition(item, *count), inner, counts)
        ),
        max_leaves=6,
    )


regular = nodes([])
recursive = st.fixed_dictionaries({name: nodes(["root", "other"]) for name in ("root", "other")}).filter(
    productive
)


def generated(state: GrammarState, prefix: str = "", length: int = 3) -> set[str]:
    """All texts of up to `length` letters that the masks let through; the state ends where it began."""
    ids = allowed(state, BYTE_PAIRS)
    found = {prefix} if ids & BYTE_PAIRS.end_ids else set()
    for letter, token_id in TOKENS.items():
        if length and token_id in ids:
            state.accept(token_id)
            found |= generated(state, prefix + letter, length - 1)
            state.rollback(1)
            assert allowed(state, BYTE_PAIRS) == ids
    return found


def texts_of(rules: Rules) -> set[str]:
    try:
        return generated(COMPILER.start(GbnfGrammar(to_gbnf(rules))))
    except RequestError as error:
        if "admits no text" not in str(error):
            raise
        return set()


@settings(deadline=None, max_examples=100)
@given(regular)
def test_regular_grammars_admit_exactly_their_texts(node: Node) -> None:
    rules = {"root": node}
    assert texts_of(rules) == {text for text in SHORT if recognises(rules, text)}


@settings(deadline=None, max_examples=100)
@given(recursive)
def test_recursive_grammars_admit_nothing_else(rules: Rules) -> None:
    assert texts_of(rules) <= {text for text in SHORT if recognises(rules, text)}


@settings(deadline=None, max_examples=100)
@given(recursive)
def test_unrolled_recursion_admits_the_same(rules: Rules) -> None:
    unrolled = without_linear_recursion(rules)
    for text in SHORT:
        assert recognises(unrolled, text) == recognises(rules, text)


@settings(deadline=None, max_examples=100)
@given(regular, regular)
def test_borders_bound_what_short_texts_show(left: Node, right: Node) -> None:
    sides = [borders(node, {}) for node in (left, right)]
    for node, side in zip((left, right), sides, strict=True):
        check_bounds(node, side)
    check_bounds(Concatenation((left, right)), joined(sides))


def check_bounds(node: Node, side: Borders) -> None:
    matched = [text for text in SHORT if recognises({"root": node}, text)]
    assert side.empty == ("" in matched)
    for text in matched:
        assert not text or contains(side, "first", text[0])
        assert all(contains(side, "all", letter) for letter in text)
        for other in matched:
            if text.startswith(other) and text != other:
                assert contains(side, "more", text[len(other)])


def contains(side: Borders, part: str, letter: str) -> bool:
    return any(first <= ord(letter) <= last for first, last in getattr(side, part).ranges)
