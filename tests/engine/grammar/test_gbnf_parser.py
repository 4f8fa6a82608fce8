import pytest

from engine.errors import RequestError
from engine.grammar.gbnf_nodes import (
    Alternation,
    CharacterClass,
    Concatenation,
    Literal,
    Node,
    Reference,
    Repetition,
)
from engine.grammar.gbnf_parser import MAX_NESTING, parse_gbnf

A, B = Literal("a"), Literal("b")


@pytest.mark.parametrize(
    ("right_side", "node"),
    [
        ('"a"', A),
        ('""', Literal("")),
        ("", Concatenation(())),
        (r'"\"\\\n\r\t\[\]"', Literal('"\\\n\r\t[]')),
        (r'"\x41\u00e9\U0001F600é"', Literal("Aé😀é")),
        ('"a" "b"', Concatenation((A, B))),
        ('"a" | "b"', Alternation((A, B))),
        ('"a" | ', Alternation((A, Concatenation(())))),
        ('"a" |\n "b"', Alternation((A, B))),
        ('"a" # one\n | "b"', Alternation((A, B))),
        ('("a"\n"b")', Concatenation((A, B))),
        ('"a"*', Repetition(A, 0, None)),
        ('"a" +', Repetition(A, 1, None)),
        ('"a"?', Repetition(A, 0, 1)),
        ('"a"{3}', Repetition(A, 3, 3)),
        ('"a"{ 2 , }', Repetition(A, 2, None)),
        ('"a"{0,7}', Repetition(A, 0, 7)),
        ('"a"+?', Repetition(Repetition(A, 1, None), 0, 1)),
        ("[a-z_]", CharacterClass(((97, 122), (95, 95)))),
        (r"[^\]\x00-\x1F-]", CharacterClass(((93, 93), (0, 31), (45, 45)), negated=True)),
        ("[-+]", CharacterClass(((45, 45), (43, 43)))),
        (".", CharacterClass((), negated=True)),
    ],
)
def test_each_notation(right_side: str, node: Node) -> None:
    assert parse_gbnf(f"root ::= {right_side}\n") == {"root": node}


def test_rules_comments_and_line_ends() -> None:
    text = '# first\r\nroot ::= a-1 b_2 # behind\r\n\r\na-1 ::=\r\n  b_2\r\nb_2 ::= "b"'
    assert parse_gbnf(text) == {
        "root": Concatenation((Reference("a-1", 18), Reference("b_2", 22))),
        "a-1": Reference("b_2", text.index("b_2", 30)),
        "b_2": B,
    }


def test_the_later_of_two_rules_counts() -> None:
    assert parse_gbnf('root ::= "a"\nroot ::= "b"') == {"root": B}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('root = "a"', "line 1: expected ::= after the rule name 'root'"),
        ('\n\nroot ::= ("a"', "line 3: expected )"),
        ('root ::= "a" )', "line 1: unexpected ')'"),
        ('root ::= "a', 'line 1: a text is not closed with "'),
        ("root ::= [a", "line 1: a class is not closed with ]"),
        ("root ::= [a-", "line 1: a class is not closed with ]"),
        ("root ::= []", "line 1: a class is empty"),
        ("root ::= [z-a]", "line 1: the range 'z' to 'a' is empty"),
        (r'root ::= "\q"', r"line 1: unknown escape \q"),
        (r'root ::= "\x4"', r"line 1: \x needs 2 hexadecimal digits"),
        (r'root ::= "\u00_1"', r"line 1: \u needs 4 hexadecimal digits"),
        (r'root ::= "\uD83D"', "line 1: U+D83D is no character"),
        (r'root ::= "\U00110000"', "line 1: U+110000 is no character"),
        ("root ::= *", "line 1: nothing stands before *"),
        ('root ::= "a"{2', "line 1: expected }"),
        ('root ::= "a"{,2}', "line 1: expected a number in braces"),
        ('root ::= "a"{3,2}', "line 1: {3,2} ends before it begins"),
        ('root ::= "a"{2001}', "line 1: more than 2000 repetitions"),
        ('root ::= "a"{' + "9" * 5000 + "}", "line 1: more than 2000 repetitions"),
        ("root ::= " + "(" * 100, f"line 1: more than {MAX_NESTING} groups within each other"),
        ("root ::= %", "line 1: unexpected '%'"),
        ("%", "line 1: expected the name of a rule"),
    ],
)
def test_errors_say_what_and_where(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_gbnf(text)
    assert str(caught.value) == f"the grammar is not valid GBNF: {message}"
