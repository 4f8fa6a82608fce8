import json
import re
from dataclasses import replace

import pytest

from engine.errors import RequestError
from engine.grammar import GrammarCompiler
from engine.tokenizer import Tokenizer
from engine.types import Tag, TaggedGrammar
from tests.engine.grammar.walks import BYTE_PAIRS, admits, follow, texts, with_control

F = json.dumps(
    {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    }
)
G = '{"type": "array", "items": {"type": "null"}}'
GRAMMAR = TaggedGrammar(
    "<tool_call>",
    (
        Tag('<tool_call>\n{"name": "f", "arguments": ', F, "}\n</tool_call>"),
        Tag('<tool_call>\n{"name": "ff", "arguments": ', G, "}\n</tool_call>"),
    ),
)
ONE = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
TWO = '<tool_call>\n{"name": "ff", "arguments": [null,\n null]}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "g'

CONTROL_TOKENS = with_control("<tool_call>", "</tool_call>", "<think>")
"""Where the plain vocabulary spells the tags out, this one has a token for each."""

TOKENIZERS = pytest.mark.parametrize("tokenizer", [BYTE_PAIRS, CONTROL_TOKENS], ids=["text", "control"])
COMPILERS = {id(tokenizer): GrammarCompiler(tokenizer) for tokenizer in (BYTE_PAIRS, CONTROL_TOKENS)}


def takes(tokenizer: Tokenizer, grammar: TaggedGrammar, text: str) -> bool:
    return admits(tokenizer, grammar, text, COMPILERS[id(tokenizer)])


@TOKENIZERS
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_what_may_come(tokenizer: Tokenizer, required: bool, several: bool) -> None:
    grammar = replace(GRAMMAR, required=required, several=several)
    assert takes(tokenizer, grammar, ONE)
    assert takes(tokenizer, grammar, TWO)
    assert takes(tokenizer, grammar, ONE + TWO) == several
    assert takes(tokenizer, grammar, ONE + "\n" + TWO) == several
    assert takes(tokenizer, grammar, "A <tool, é\n" + ONE) == (not required)
    assert takes(tokenizer, grammar, ONE + " and " + TWO + ".") == (several and not required)
    assert takes(tokenizer, grammar, "no tool") == (not required)
    assert takes(tokenizer, grammar, "") == (not required)
    for text in (WRONG, "x" + WRONG, "<tool_call>", "x<tool_call>x", ONE + WRONG):
        assert not takes(tokenizer, grammar, text)


@TOKENIZERS
def test_the_reply_is_finished_after_the_only_tag(tokenizer: Tokenizer) -> None:
    state = COMPILERS[id(tokenizer)].start(replace(GRAMMAR, several=False))
    assert follow(state, tokenizer, tokenizer.encode("Hi" + ONE, add_bos=False)) is None
    assert state.finished


@TOKENIZERS
def test_random_calls(tokenizer: Tokenizer) -> None:
    grammar = replace(GRAMMAR, required=True)
    found = texts(tokenizer, grammar, compiler=COMPILERS[id(tokenizer)])
    for text in found:
        calls = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)
        assert re.sub(r"<tool_call>.*?</tool_call>", "", text, flags=re.DOTALL).strip() == ""
        assert calls
        for call in map(json.loads, calls):
            assert list(call) == ["name", "arguments"]
            assert call["name"] in ("f", "ff")
            assert type(call["arguments"]) is (dict if call["name"] == "f" else list)
    assert any(text.count("<tool_call>") > 1 for text in found)


def test_a_trigger_that_is_a_token_cannot_be_spelled_out() -> None:
    state = COMPILERS[id(CONTROL_TOKENS)].start(GRAMMAR)
    spelled = CONTROL_TOKENS.encode("a<tool_call>", parse_special=False, add_bos=False)
    assert follow(state, CONTROL_TOKENS, spelled) == len(spelled) - 1


def test_other_control_tokens_may_come_in_free_text() -> None:
    assert takes(CONTROL_TOKENS, GRAMMAR, "<think>well<think>" + ONE)
    assert not takes(CONTROL_TOKENS, replace(GRAMMAR, required=True), "<think>" + ONE)


def test_an_end_that_ends_the_reply() -> None:
    grammar = TaggedGrammar("<tool_call>", (Tag("<tool_call>", F, "<|im_end|>ignored"),))
    for tokenizer in (BYTE_PAIRS, CONTROL_TOKENS):
        for required in (False, True):
            state = COMPILERS[id(tokenizer)].start(replace(grammar, required=required))
            assert follow(state, tokenizer, tokenizer.encode('<tool_call>{"x":1}', add_bos=False)) is None
            assert state.finished


def test_tags_of_which_only_some_end_the_reply() -> None:
    grammar = TaggedGrammar("call:", (Tag("call:f", F, ";"), Tag("call:g", G, "<|im_end|>")), required=True)
    for text in ('call:f{"x":1};', 'call:f{"x":1};\ncall:g[]', "call:g[]"):
        assert takes(BYTE_PAIRS, grammar, text)
    assert not takes(BYTE_PAIRS, grammar, 'call:g[]call:f{"x":1};')


def test_a_token_behind_a_trigger_of_text() -> None:
    grammar = TaggedGrammar("call", (Tag("call<tool_call>", F, "</tool_call>"), Tag("calls", F, "")))
    assert takes(CONTROL_TOKENS, grammar, 'a call<tool_call>{"x":1}</tool_call> or calls{"x":3} z')
    assert not takes(CONTROL_TOKENS, grammar, "a call z")


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (TaggedGrammar("", (Tag("a", F, ""),)), "the trigger of the tags is empty"),
        (TaggedGrammar("a", ()), "a grammar needs 1 to 256 tags, not 0"),
        (TaggedGrammar("a", (Tag("b", F, ""),)), "the tag 'b' does not start with 'a'"),
        (TaggedGrammar("a", (Tag("a", F, ""),) * 2), "two tags have the same beginning"),
        (
            TaggedGrammar("a", (Tag("a" * 5000, F, ""),)),
            "a tag's beginning or end is longer than 4096 characters",
        ),
        (
            TaggedGrammar("a", (Tag("a<|im_end|>", F, ""),)),
            "the tag 'a<|im_end|>' holds a token that ends the reply",
        ),
        (
            TaggedGrammar("a", tuple(Tag(f"a{at}" + "x" * 4090, F, "y" * 4090) for at in range(200))),
            "the tags are longer than 1048576 characters",
        ),
    ],
)
def test_errors(grammar: TaggedGrammar, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        COMPILERS[id(BYTE_PAIRS)].check(grammar)
    assert str(caught.value) == message
