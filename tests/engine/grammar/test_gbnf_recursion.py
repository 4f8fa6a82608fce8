import pytest

from engine.grammar.gbnf_nodes import Node
from engine.grammar.gbnf_parser import parse_gbnf
from engine.grammar.gbnf_recursion import MAX_WAYS, without_linear_recursion
from tests.engine.grammar.recogniser import recognises


def unrolled(right_side: str) -> Node:
    return without_linear_recursion(parse_gbnf(f"a ::= {right_side}"))["a"]


@pytest.mark.parametrize(
    "right_side",
    ['("x" a)?', '"x" a | "y"', '"y" | a "x"', '"x" ("y" a | "z" a | "")', '"x" ("," a)?', 'a | "x"'],
)
def test_recursion_at_one_side_goes(right_side: str) -> None:
    assert "Reference" not in repr(unrolled(right_side))


@pytest.mark.parametrize("right_side", ['"x" a', 'a "x"', "a", '"(" a ")" | "x"', '"x"'])
def test_a_rule_without_a_way_out_or_with_recursion_inside_stays(right_side: str) -> None:
    assert unrolled(right_side) == parse_gbnf(f"a ::= {right_side}")["a"]


def test_many_ways_beside_many_parts_are_not_multiplied() -> None:
    few, many = (f'"x" ({" | ".join(["a"] * count)} | "y")' for count in (MAX_WAYS - 1, MAX_WAYS))
    assert "Reference" not in repr(unrolled(few))
    assert unrolled(many) == parse_gbnf(f"a ::= {many}")["a"]
    assert recognises({"a": unrolled(few)}, "xxy", root="a")
