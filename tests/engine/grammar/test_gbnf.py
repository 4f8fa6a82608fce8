import json
import re

import pytest

from engine.errors import RequestError
from engine.grammar import GrammarCompiler
from engine.grammar.gbnf import MAX_DEPTH, gbnf_to_lark
from engine.grammar.tokens import GrammarTokens
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar
from tests.engine.grammar.walks import (
    BYTE_PAIRS,
    COMPILERS,
    SENTENCE_PIECES,
    WITHOUT_PREFIX,
    admits,
    allowed,
    follow,
    texts,
    with_control,
)

TOKENS = GrammarTokens(BYTE_PAIRS)
ARITHMETIC = """
root ::= expr
expr ::= term ([-+*/] term)*  # any operator
term ::= number | "(" expr ")"
number ::= [0-9]{1,3}
"""

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4})
  )* "\"" ws
number ::= ("-"? ("0" | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,2})? ws
ws ::= ([ \t\n] ws)?
"""

LISTING = r"""
root ::= item{1,4}
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]{1,9} "\n"
"""

CHESS = """
root ::= "1. " move " " move "\\n" ([1-9] [0-9]? ". " move " " move "\\n"){0,3}
move ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"""

STATEMENTS = """
root ::= statement+
statement ::= "return" ws expression ";" | name ws "=" ws expression ";" | name ws "(" expression? ");"
  | "{" statement* "}"
expression ::= term (("+" | "-") term)*
term ::= name | [0-9]+ | call | "(" ws expression ws ")"
call ::= name "(" expression? ")"
name ::= [a-z_] [a-z_0-9]*
ws ::= [ \\n]+
"""

MOVE = r"(?:(?:[a-h]x)?[a-h][1-8](?:=[NBKQR])?|[NBKQR][a-h]?[1-8]?x?[a-h][1-8]|O-O(?:-O)?)[+#]?"

BOTH = pytest.mark.parametrize("tokenizer", [BYTE_PAIRS, SENTENCE_PIECES], ids=["bpe", "spm"])


@BOTH
@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (LISTING, r"(?:- [^\r\n\x0b\x0c\x85\u2028\u2029]{1,9}\n){1,4}"),
        (CHESS, rf"1\. {MOVE} {MOVE}\n(?:[1-9][0-9]?\. {MOVE} {MOVE}\n){{0,3}}"),
        (r"root ::= [é-ü]{2} '".replace("'", r'"\U0001F600" .'), "[é-ü]{2}😀(?s:.)"),
        (r'root ::= ("\x41" | [^\x00-\x60])? "/\"\\"', r'(?:A|[^\x00-\x60])?/"\\'),
    ],
    ids=["listing", "chess", "unicode", "escapes"],
)
def test_regular_grammars(tokenizer: Tokenizer, grammar: str, pattern: str) -> None:
    for text in texts(tokenizer, GbnfGrammar(grammar)):
        assert re.fullmatch(pattern, text)


@BOTH
def test_arithmetic(tokenizer: Tokenizer) -> None:
    for text in texts(tokenizer, GbnfGrammar(ARITHMETIC)):
        assert re.fullmatch(r"[0-9()*/+-]+", text)
        # numbers with leading zeros are none to Python
        compile(re.sub("[0-9]+", "1", text), "text", "eval")


@BOTH
def test_json(tokenizer: Tokenizer) -> None:
    for text in texts(tokenizer, GbnfGrammar(JSON)):
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (ARITHMETIC, "1+(22*(3/4))-555"),
        (JSON, '{"a": [1, -2.5e3, true, {"é😀": "\\n \\u00e9"}], "b": {}}\n\n\n  '),
        (STATEMENTS, "x =  1;{returned = ( x );return ( x )+f(2);f (f(f));}return\nx-1;"),
        ('root ::= word+ "."\nword ::= [a-z]+ | "(" root ")"', "ab((c.)d.)."),
        ("root ::= root [ab] | [ab]", "abba"),
        ('root ::= "a" root | "b" root | "c"', "ab" * 50 + "c"),
        ('root ::= [a-z]+ nothing\nnothing ::= "" | end\nend ::= nothing', "abc"),
        ('root ::= "" | "(" root ")" root', "(()())()"),
        ('root ::= (("a" "b"){2}){1,2} ("c"*)*', "ababababccc"),
        ("root ::= [^a]*", "b\n😀"),
        ("root ::= " + "(" * 60 + '"a"' + ")?" * 60, ""),
    ],
)
def test_texts_that_must_be_admitted(grammar: str, text: str) -> None:
    for tokenizer in (BYTE_PAIRS, WITHOUT_PREFIX):
        assert admits(tokenizer, GbnfGrammar(grammar), text)


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (ARITHMETIC, "1+"),
        (ARITHMETIC, "1234"),
        (JSON, '{"a": 01}'),
        (JSON, "[]"),
        (STATEMENTS, "return x"),
        ("root ::= [^a]*", "ba"),
        ("root ::= .", ""),
    ],
)
def test_texts_that_must_not_be_admitted(grammar: str, text: str) -> None:
    assert not admits(BYTE_PAIRS, GbnfGrammar(grammar), text)


def test_a_long_text_of_a_rule_that_calls_itself_at_its_end() -> None:
    grammar = GbnfGrammar('root ::= [^"] root | "\\""')
    assert admits(BYTE_PAIRS, grammar, "x" * 5000 + '"')


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "the grammar has no rule root"),
        ('main ::= "a"', "the grammar has no rule root"),
        (
            'root ::= "a"\n  more',
            "the grammar is not valid GBNF: line 2: expected ::= after the rule name 'more'",
        ),
        ("root ::= (\n  more)", "the grammar is not valid GBNF: line 2: there is no rule 'more'"),
        ("root ::= root", "the grammar admits no text that the model's tokens can write"),
        ('root ::= root "a"', "the grammar admits no text that the model's tokens can write"),
        (f'root ::= "{"a" * (256 << 10)}"', "the grammar is longer than 262144 characters"),
    ],
)
def test_errors(grammar: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        COMPILERS[id(BYTE_PAIRS)].check(GbnfGrammar(grammar))
    assert str(caught.value) == message


def chain(length: int) -> str:
    """Rules that need each other, none of them regular."""
    rules = [f'r{at} ::= "a" r{at + 1} "b"' for at in range(length)]
    return "\n".join(["root ::= r0", *rules, f'r{length} ::= "(" root ")" | "x"'])


def test_depth_is_bounded() -> None:
    GrammarCompiler(BYTE_PAIRS).check(GbnfGrammar(chain(MAX_DEPTH - 5)))
    with pytest.raises(RequestError, match=f"more than {MAX_DEPTH} deep"):
        gbnf_to_lark(chain(MAX_DEPTH), TOKENS)
    # the same without recursion, where all are terminals
    with pytest.raises(RequestError, match=f"more than {MAX_DEPTH} deep"):
        gbnf_to_lark(chain(MAX_DEPTH).replace("root ::", "top ::") + '\nroot ::= r0\ntop ::= "y"', TOKENS)


def rows(count: int) -> str:
    """Many rules at one place, each with the same way on."""
    rules = "\n".join(f'r{at} ::= "{at}" | "(" root ")"' for at in range(count))
    return f"root ::= {' | '.join(f'r{at}' for at in range(count))}\n{rules}"


def test_many_rules_at_one_place_are_not_deep() -> None:
    assert admits(BYTE_PAIRS, GbnfGrammar(rows(100)), "((99))")


def test_ambiguity_is_bounded() -> None:
    with pytest.raises(RequestError, match="more than 600 alternatives"):
        gbnf_to_lark(rows(300), TOKENS)


def test_many_words_are_one_terminal() -> None:
    words = " | ".join(f'"word{number} "' for number in range(2000))
    assert admits(BYTE_PAIRS, GbnfGrammar(f'root ::= {words} | "(" root ")"'), "((word1999 ))")


def test_a_text_that_is_forced_without_end_is_made_step_by_step() -> None:
    state = COMPILERS[id(BYTE_PAIRS)].start(GbnfGrammar('root ::= "a" more\nmore ::= "bc" more'))
    assert follow(state, BYTE_PAIRS, BYTE_PAIRS.encode("abcbcbc", add_bos=False)) is None
    assert not state.finished


THINKING = with_control("<think>", "</think>")
THINKING_COMPILER = GrammarCompiler(THINKING)


def thinks(grammar: str, text: str) -> bool:
    return admits(THINKING, GbnfGrammar(grammar), text, THINKING_COMPILER)


def test_tokens_by_name_and_number() -> None:
    opening = THINKING.encode("<think>", add_bos=False)[0]
    for token in ("<think>", f"<[{opening}]>"):
        grammar = f"root ::= {token} thought </think> [a-z]{{2}}\nthought ::= !</think>*"
        assert thinks(grammar, "<think>well, é <think></think>ab")
        assert not thinks(grammar, "<think>well</think>a</think>")
        assert not thinks(grammar, "x")


def test_tokens_of_plain_text() -> None:
    """The token `he` is not the letters `h` and `e`."""
    he = THINKING.encode("he", add_bos=False)
    assert len(he) == 1
    state = THINKING_COMPILER.start(GbnfGrammar(f"root ::= <[{he[0]}]>"))
    assert allowed(state, THINKING) == set(he)
    state = THINKING_COMPILER.start(GbnfGrammar(f"root ::= !<[{he[0]}]>+"))
    shown = {i for i in range(THINKING.vocab_size) if THINKING.piece(i, render_special=True)}
    assert allowed(state, THINKING) == shown - set(he) - THINKING.end_ids


def test_tokens_in_rules_that_come_back() -> None:
    grammar = 'root ::= "(" (root | <think> "x"?) ")"'
    assert thinks(grammar, "((<think>x))")
    assert not thinks(grammar, "((x))")


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("root ::= <nope>", "line 1: the model has no token '<nope>'"),
        ('root ::= "a"\nb ::= !<[99999999]>', "line 2: the model has no token 99999999"),
        ("root ::= <think", "line 1: expected a token"),
        ("root ::= <[x]>", "line 1: expected a token"),
        ("root ::= " + " ".join(f"!<[{i}]>" for i in range(257)), "line 1: there are more than 256 tokens"),
    ],
)
def test_tokens_that_there_are_not(grammar: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        THINKING_COMPILER.check(GbnfGrammar(grammar))


@pytest.mark.parametrize("hyphen", [r"[a-c\-]", r"[\-a-c]", r"[a\-bc]", '("\\-" | [abc])'])
def test_an_escaped_hyphen_is_a_hyphen(hyphen: str) -> None:
    for text, expected in (("-a-", True), ("a-c", True), ("a.c", False)):
        assert admits(BYTE_PAIRS, GbnfGrammar(f"root ::= {hyphen}{{3}}"), text) == expected
