from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.grammar.character_set import MAX_RANGES, CharacterSet
from engine.grammar.gbnf_nodes import MAX_CODE_POINT

codes = st.integers(0, 40)
ranges = st.lists(st.tuples(codes, st.integers(0, 3)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


def members(characters: CharacterSet) -> set[int]:
    return {code for first, last in characters.ranges for code in range(first, min(last, 99) + 1)}


def expected(pairs: list[tuple[int, int]]) -> set[int]:
    return {code for first, last in pairs for code in range(first, last + 1)}


@given(ranges, ranges)
def test_operations_are_those_of_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    one, other = CharacterSet.of(left), CharacterSet.of(right)
    assert members(one) == expected(left)
    assert members(one | other) == expected(left) | expected(right)
    assert members(one.complement()) == set(range(100)) - expected(left)
    assert one.isdisjoint(other) == expected(left).isdisjoint(expected(right))


@given(ranges)
def test_ranges_are_apart_and_ascend(pairs: list[tuple[int, int]]) -> None:
    found = CharacterSet.of(pairs).ranges
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(found))


def test_a_set_of_many_ranges_grows() -> None:
    many = CharacterSet.of((code, code) for code in range(0, 1000, 2))
    assert len(many.ranges) == MAX_RANGES
    assert many.ranges[0] == (0, 0)
    assert many.ranges[-1] == (126, 998)


def test_the_complement_of_all_is_nothing() -> None:
    assert CharacterSet(((0, MAX_CODE_POINT),)).complement() == CharacterSet()
