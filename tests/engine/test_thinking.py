"""The budget of thoughts: when the closing begins, that it is written whole, what goes back with tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.generation import Generation
from engine.grammar import GrammarCompiler
from engine.sampling import Draw
from engine.thinking import ThinkingLimit
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar, Tag, TaggedGrammar, ThinkingBudget
from tests.engine.driving import request, run

CLOSING = "!!</t>OK"
"""Goes on behind the end of the thought."""


def budget(tokens: int, closing: str = CLOSING) -> ThinkingBudget:
    return ThinkingBudget(tokens, opening="<t>", end="</t>", closing=closing)


def bytes_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token a byte."""
    found = {tokenizer.piece(token): token for token in range(tokenizer.vocab_size)}
    return [found[bytes([byte])] for byte in text.encode()]


class Reply:
    """A model that writes what it is given, byte by byte, except where a token is forced."""

    def __init__(self, tokenizer: Tokenizer, limit: ThinkingLimit) -> None:
        self.tokenizer = tokenizer
        self.limit = limit

    def write(self, text: str) -> str:
        """Write the whole text; what came of it, with the forced tokens where they came."""
        written = ""
        for token in bytes_of(self.tokenizer, text):
            written += self.write_forced()
            self.limit.push(token)
            written += self.tokenizer.decode([token])
        return written + self.write_forced()

    def write_forced(self) -> str:
        written = ""
        while (token := self.limit.forced) is not None:
            assert len(written) < 99, "the closing does not end"
            self.limit.push(token)
            written += self.tokenizer.decode([token])
        return written


def reply(tokenizer: Tokenizer, tokens: int, prompt: str = "", closing: str = CLOSING) -> Reply:
    limit = ThinkingLimit(budget(tokens, closing), tokenizer, tokenizer.encode(prompt))
    return Reply(tokenizer, limit)


@pytest.mark.parametrize("tokens", [0, 1, 2, 5])
def test_after_as_many_thoughts_as_allowed_the_closing_is_forced(
    gpt2_tokenizer: Tokenizer, tokens: int
) -> None:
    it = reply(gpt2_tokenizer, tokens)
    thoughts = "abcde"[:tokens]
    assert it.write("x<t>" + thoughts) == f"x<t>{thoughts}{CLOSING}"
    # The thought is over: what follows is the answer, however long.
    assert it.write("abcdefgh") == "abcdefgh"


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_one_thought_less_forces_nothing(gpt2_tokenizer: Tokenizer, tokens: int) -> None:
    it = reply(gpt2_tokenizer, tokens)
    assert it.write("<t>" + "abcde"[: tokens - 1]) == "<t>" + "abcde"[: tokens - 1]
    assert it.limit.forced is None


def test_a_thought_that_ends_with_its_last_allowed_token_is_not_closed_again(
    gpt2_tokenizer: Tokenizer,
) -> None:
    assert reply(gpt2_tokenizer, 6).write("<t>ab</t>cdefgh") == "<t>ab</t>cdefgh"
    # The end itself takes four tokens, of which three are allowed.
    assert reply(gpt2_tokenizer, 5).write("<t>ab</t") == f"<t>ab</t{CLOSING}"


def test_each_thought_has_the_whole_budget(gpt2_tokenizer: Tokenizer) -> None:
    written = reply(gpt2_tokenizer, 6).write("<t>ab</t>cd<t>abcdef")
    assert written == f"<t>ab</t>cd<t>abcdef{CLOSING}"


def test_a_tag_counts_once(gpt2_tokenizer: Tokenizer) -> None:
    # an end in front of the thought, and an opening within it
    assert reply(gpt2_tokenizer, 2).write("a</t><t>bc") == f"a</t><t>bc{CLOSING}"
    assert reply(gpt2_tokenizer, 9).write("<t>a<t></t>" + "b" * 20) == "<t>a<t></t>" + "b" * 20


@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_a_thought_that_the_prompt_has_opened_counts(gpt2_tokenizer: Tokenizer, tokens: int) -> None:
    it = reply(gpt2_tokenizer, tokens, "<t>a</t>b<t>\n")
    assert it.write("abc"[:tokens]) == "abc"[:tokens] + CLOSING


@pytest.mark.parametrize("prompt", ["", "<t></t>", "<t>a</t>\n", "a</t>", "<t>a<t>b</t>"])
def test_a_thought_that_the_prompt_has_closed_does_not(gpt2_tokenizer: Tokenizer, prompt: str) -> None:
    assert reply(gpt2_tokenizer, 0, prompt).write("abcdef") == "abcdef"


def test_tags_that_are_special_tokens_are_seen(gpt2_tokenizer: Tokenizer) -> None:
    tags = ThinkingBudget(1, "<|im_start|>", "<|im_end|>", "!<|im_end|>")
    start, end = gpt2_tokenizer.encode("<|im_start|><|im_end|>")
    (a,) = gpt2_tokenizer.encode("a")
    opened = ThinkingLimit(tags, gpt2_tokenizer, [start])
    opened.push(a)
    assert opened.forced == gpt2_tokenizer.encode("!")[0]
    closed = ThinkingLimit(tags, gpt2_tokenizer, [start])
    closed.push(end)
    closed.push(a)
    assert closed.forced is None


def test_a_closing_without_the_end_is_repeated(gpt2_tokenizer: Tokenizer) -> None:
    """It is the caller's fault, but the thought is over its budget for as long as it is open."""
    it = reply(gpt2_tokenizer, 0, "<t>", closing="!?")
    first, second = bytes_of(gpt2_tokenizer, "!?")
    forced = []
    for _ in range(4):
        assert it.limit.forced is not None
        forced.append(it.limit.forced)
        it.limit.push(it.limit.forced)
    assert forced == [first, second] * 2


def test_tokens_that_go_back_are_no_thoughts(gpt2_tokenizer: Tokenizer) -> None:
    it = reply(gpt2_tokenizer, 4)
    assert it.write("<t>abc") == "<t>abc"
    it.limit.take_back(1)
    it.limit.take_back(1)
    assert it.write("xy") == "xy"
    assert it.write("z") == "z" + CLOSING


@pytest.mark.parametrize(
    ("tokens", "before", "gone", "after", "expected"),
    [
        (2, "<t", ">", "xyz", "xyz"),
        (2, "<", "t>a", "abcd", "abcd"),
        (2, "<t", "x", ">ab", f">ab{CLOSING}"),
        (5, "<t>a</t", ">", "xy", f"x{CLOSING}y"),
        (5, "<t>a</t", ">bc", "de", f"d{CLOSING}e"),
        (5, "<t></", "x", "t>abcdef", "t>abcdef"),
        (5, "<t>abcd", "e", "", ""),
    ],
)
def test_tags_that_go_back_have_never_been(
    gpt2_tokenizer: Tokenizer, tokens: int, before: str, gone: str, after: str, expected: str
) -> None:
    it = reply(gpt2_tokenizer, tokens)
    for token in bytes_of(gpt2_tokenizer, before + gone):
        it.limit.push(token)
    it.limit.take_back(len(gone))
    assert it.write(after) == expected


def test_a_closing_that_goes_back_is_forced_from_where_it_was(gpt2_tokenizer: Tokenizer) -> None:
    it = reply(gpt2_tokenizer, 0, "<t>")
    for token in bytes_of(gpt2_tokenizer, "!!</"):
        it.limit.push(token)
    it.limit.take_back(2)
    assert it.write_forced() == CLOSING[2:]


def test_a_closing_that_another_token_interrupts_begins_again(gpt2_tokenizer: Tokenizer) -> None:
    it = reply(gpt2_tokenizer, 0, "<t>")
    for token in bytes_of(gpt2_tokenizer, "!!x"):
        it.limit.push(token)
    assert it.write_forced() == CLOSING


def test_the_rest_of_a_closing_behind_the_end_is_not_repeated(gpt2_tokenizer: Tokenizer) -> None:
    it = reply(gpt2_tokenizer, 0, "<t>")
    for token in bytes_of(gpt2_tokenizer, "!!</t>x"):
        it.limit.push(token)
    assert it.limit.forced is None


class Writer:
    """Writes a reply into a generation: forced tokens, and others byte by byte."""

    def __init__(
        self, tokenizer: Tokenizer, thinking: ThinkingBudget, prompt: str = "<t>", **others: Any
    ) -> None:
        given = request("x", tokenizer.encode(prompt), 99, thinking=thinking, **others)
        grammar = given.grammar
        started = None if grammar is None else GrammarCompiler(tokenizer).start(grammar)
        self.generation = Generation(given, tokenizer, started)
        self.tokenizer = tokenizer

    @property
    def forced(self) -> str | None:
        """The text of the token that must come next."""
        token = self.generation.row.forced
        return None if token is None else self.tokenizer.decode([token])

    def write(self, text: str) -> list[int]:
        """How many tokens each of these took back. None of them may be forced."""
        rewinds = []
        for token in bytes_of(self.tokenizer, text):
            assert self.forced is None
            rewinds.append(self.generation.accept(Draw(token)).rewind)
        return rewinds

    def write_forced(self, most: int = 99) -> str:
        """Tokens for as long as one is forced."""
        written = ""
        while len(written) < most and (forced := self.forced) is not None:
            self.generation.accept(Draw(bytes_of(self.tokenizer, forced)[0]))
            written += forced
        return written


def test_a_grammar_goes_before_the_closing(gpt2_tokenizer: Tokenizer) -> None:
    """Where it does not let the closing go on, the model writes, and the closing is then written whole."""
    grammar = GbnfGrammar('root ::= [a-z]{4} "!" "\\"" "!!</t>OK" "end"')
    it = Writer(gpt2_tokenizer, budget(2), grammar=grammar)
    it.write("abcd")
    assert it.write_forced() == "!"
    # the neighbour of the token that would be forced
    it.write('"')
    assert it.write_forced() == CLOSING


def test_a_call_in_a_thought_is_finished_first(gpt2_tokenizer: Tokenizer) -> None:
    tags = TaggedGrammar("<call>", (Tag("<call>f:", '{"type": "boolean"}', "</call>"),))
    it = Writer(gpt2_tokenizer, budget(8), grammar=tags)
    it.write("a<call>f:true</call>")
    assert it.write_forced() == CLOSING


def test_thoughts_that_hold_a_banned_phrase_do_not_count(gpt2_tokenizer: Tokenizer) -> None:
    it = Writer(gpt2_tokenizer, budget(4), banned_phrases=("bad",))
    assert it.write("xbad") == [0, 0, 0, 3]
    it.write("yzw")
    assert it.write_forced() == CLOSING


def test_a_closing_never_brings_a_banned_phrase_in(gpt2_tokenizer: Tokenizer) -> None:
    it = Writer(gpt2_tokenizer, budget(1), banned_phrases=("!!",))
    it.write("a")
    assert it.write_forced(2) == "!!"
    # Both are taken back, and the first may not come there again.
    assert it.forced is None
    it.write("b")
    assert it.forced == "!"


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_the_engine_closes_a_thought(tiny_model: Path, tokens: int) -> None:
    engine = Engine.load(EngineConfig(tiny_model, context_length=256, device="cpu", threads=1))
    given = request("free", "Hello <t>", 40, ban_eos=True)
    bound = replace(given, request_id="bound", thinking=budget(tokens))
    replies = run(engine, [given, bound])
    closing = engine.tokenizer.encode(CLOSING)
    assert replies["bound"].tokens[: tokens + len(closing)] == replies["free"].tokens[:tokens] + closing
    assert len(replies["bound"].tokens) == 40
