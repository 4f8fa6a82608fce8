import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.grammar import GrammarCompiler
from engine.grammar.compiled import CompiledGrammar
from engine.grammar.state import BURST_SECONDS, MASK_SECONDS, GrammarState
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar, Grammar, JsonGrammar, Tag, TaggedGrammar
from tests.engine.grammar.walks import BYTE_PAIRS, COMPILERS, SENTENCE_PIECES, allowed, follow
from tests.engine.tokenizer.vocabularies import byte_pairs
from tests.support.work import lines_run

GRAMMARS: tuple[Grammar, ...] = (
    GbnfGrammar('root ::= "(" root ")" root | [a-h]{0,3}'),
    JsonGrammar('{"type": "object", "additionalProperties": {"type": ["string", "integer"]}}'),
    TaggedGrammar("hell", (Tag("hello", "{}", "ll"),)),
)
END = min(BYTE_PAIRS.end_ids)
TOO_MANY_WAYS = GbnfGrammar(
    "\n".join(
        (
            "root ::= " + " | ".join(f"r{at}" for at in range(50)),
            *(f'r{at} ::= "{at}" | "(" root ")"' for at in range(50)),
        )
    )
)
"""Fifty ways to read each bracket."""


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(GRAMMARS),
    st.sampled_from([BYTE_PAIRS, SENTENCE_PIECES]),
    st.lists(st.one_of(st.floats(0, 1, exclude_max=True), st.integers(1, 6)), max_size=25),
)
def test_masks_depend_on_the_tokens_alone(
    grammar: Grammar, tokenizer: Tokenizer, moves: list[float | int]
) -> None:
    """A move is the place of a token among those allowed, or so many tokens to go back."""
    compiler = COMPILERS[id(tokenizer)]
    state = compiler.start(grammar)
    tokens: list[int] = []
    masks = [state.mask()]
    for move in moves:
        if isinstance(move, int):
            count = min(move, len(tokens))
            state.rollback(count)
            del tokens[len(tokens) - count :], masks[len(masks) - count :]
        else:
            ids = sorted(allowed(state, tokenizer))
            tokens.append(ids[int(move * len(ids))])
            state.accept(tokens[-1])
            masks.append(state.mask())
        assert np.array_equal(state.mask(), masks[-1])
    fresh = compiler.start(grammar)
    for token_id, mask in zip(tokens, masks, strict=False):
        assert np.array_equal(fresh.mask(), mask)
        fresh.accept(token_id)
    assert np.array_equal(fresh.mask(), masks[-1])
    assert fresh.finished == state.finished


def test_an_end_token_ends_the_text_and_can_be_taken_back() -> None:
    state = COMPILERS[id(BYTE_PAIRS)].start(GbnfGrammar('root ::= "a" | "ab"'))
    assert follow(state, BYTE_PAIRS, [*BYTE_PAIRS.encode("a"), END, END]) is None
    assert state.finished
    assert allowed(state, BYTE_PAIRS) == BYTE_PAIRS.end_ids
    state.rollback(1)
    assert state.finished
    state.rollback(1)
    assert not state.finished
    assert allowed(state, BYTE_PAIRS) == {*BYTE_PAIRS.end_ids, *BYTE_PAIRS.encode("b")}
    state.accept(END)
    state.rollback(2)
    assert allowed(state, BYTE_PAIRS) == set(BYTE_PAIRS.encode("a"))


def test_a_token_that_the_mask_forbids_ends_the_text(caplog: pytest.LogCaptureFixture) -> None:
    state = COMPILERS[id(BYTE_PAIRS)].start(GbnfGrammar('root ::= "ab"'))
    state.accept(BYTE_PAIRS.encode("a")[0])
    with caplog.at_level(logging.WARNING):
        state.accept(BYTE_PAIRS.encode("x")[0])
        assert state.finished
        assert allowed(state, BYTE_PAIRS) == BYTE_PAIRS.end_ids
        state.rollback(1)
        assert allowed(state, BYTE_PAIRS) == set(BYTE_PAIRS.encode("b"))
        state.accept(BYTE_PAIRS.encode("x")[0])
    assert len(caplog.records) == 1
    assert "ends the text early" in caplog.text


def test_too_much_work_ends_the_text(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are more ways to read a bracket than a row of the parser may hold here."""
    monkeypatch.setattr("engine.grammar.compiled._MAX_ITEMS_IN_ROW", 150)
    state = GrammarCompiler(BYTE_PAIRS).start(TOO_MANY_WAYS)
    bracket = BYTE_PAIRS.encode("(")[0]
    with caplog.at_level(logging.WARNING):
        assert bracket in allowed(state, BYTE_PAIRS)
        state.accept(bracket)
        assert allowed(state, BYTE_PAIRS) == BYTE_PAIRS.end_ids
    assert state.finished
    assert "items" in caplog.text
    assert state.refusal is not None
    assert "items" in state.refusal
    assert len(caplog.records) == 1
    state.rollback(1)
    assert bracket in allowed(state, BYTE_PAIRS)


def test_a_lenient_grammar_lets_go_of_what_is_too_much_work(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.grammar.compiled._MAX_ITEMS_IN_ROW", 150)
    state = GrammarState(GrammarCompiler(BYTE_PAIRS)._compile(TOO_MANY_WAYS), lenient=True)
    bracket = BYTE_PAIRS.encode("(")[0]
    assert len(allowed(state, BYTE_PAIRS)) < 100
    state.accept(bracket)
    everything = {i for i in range(BYTE_PAIRS.vocab_size) if BYTE_PAIRS.piece(i, render_special=True)}
    assert allowed(state, BYTE_PAIRS) == everything
    state.accept(bracket)
    assert (state.finished, state.refusal) == (False, None)
    state.accept(min(BYTE_PAIRS.end_ids))
    assert state.finished
    assert allowed(state, BYTE_PAIRS) == BYTE_PAIRS.end_ids
    state.rollback(2)
    assert allowed(state, BYTE_PAIRS) == everything
    assert [record.message[:37] for record in caplog.records] == ["a reply goes on without its grammar, "]


def test_a_lenient_grammar_lets_go_when_masks_take_too_long() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    state = GrammarState(COMPILERS[id(BYTE_PAIRS)]._compile(GRAMMARS[0]), clock, lenient=True)
    bound = allowed(state, BYTE_PAIRS)
    assert bound < allowed(state, BYTE_PAIRS)
    assert state.refusal is None


def test_masks_that_take_too_long_are_refused() -> None:
    """A clock under the test's control: each mask takes as long as it says."""
    compiled = COMPILERS[id(BYTE_PAIRS)]._compile(GRAMMARS[0])
    for seconds, expected in (
        (MASK_SECONDS * 0.9, None),
        (MASK_SECONDS * 3, 1 + BURST_SECONDS // (2 * MASK_SECONDS)),
    ):
        now = 0.0

        def clock(seconds: float = seconds) -> float:
            nonlocal now
            now += seconds
            return now

        state = GrammarState(compiled, clock)
        masks = 0
        while state.refusal is None and masks < 500:
            state.mask()
            masks += 1
        assert (state.refusal is None) == (expected is None)
        assert expected is None or masks == expected
    assert "too ambiguous" in str(state.refusal)


def test_what_others_compute_meanwhile_is_not_charged() -> None:
    """By the usual clock nothing but the thread's own work counts, and a mask is little of it."""
    state = COMPILERS[id(BYTE_PAIRS)].start(GRAMMARS[1])
    for _ in range(2000):
        state.mask()
    assert state.refusal is None
    assert state._allowed > BURST_SECONDS + 1000 * MASK_SECONDS


def test_a_lexer_that_other_texts_have_filled_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its states are enough for one of these texts, but not for two."""
    monkeypatch.setattr("engine.grammar.compiled._MAX_LEXER_STATES", 300)
    tokens = COMPILERS[id(BYTE_PAIRS)].start(GRAMMARS[0])._tokens
    compiled = CompiledGrammar("start: /(?s:.*)a(?s:.{12})/", tokens)
    rng = np.random.default_rng(0)
    renewed = []
    for _ in range(6):
        state = GrammarState(compiled)
        text = "".join(rng.choice(["a", "b"], 20))
        assert follow(state, BYTE_PAIRS, BYTE_PAIRS.encode(text)) is None
        renewed.append(state._renewed)
    assert any(renewed)


def test_rollback_beyond_the_beginning() -> None:
    state = COMPILERS[id(BYTE_PAIRS)].start(GRAMMARS[0])
    state.rollback(0)
    for count in (1, -1):
        with pytest.raises(ValueError, match=f"cannot take back {count} of 0 tokens"):
            state.rollback(count)


def test_a_dead_end_allows_the_end_tokens() -> None:
    """No token can write the z."""
    metadata = byte_pairs()
    names = metadata["tokenizer.ggml.tokens"]
    metadata["tokenizer.ggml.tokens"] = ["zz" if name == "z" else name for name in names]
    tokenizer = Tokenizer.from_metadata(metadata)
    for grammar in (GbnfGrammar('root ::= "abz"'), JsonGrammar('{"const": "abz"}')):
        state = GrammarCompiler(tokenizer).start(grammar)
        text = '"ab' if isinstance(grammar, JsonGrammar) else "ab"
        assert follow(state, tokenizer, tokenizer.encode(text)) is None
        assert allowed(state, tokenizer) == tokenizer.end_ids


def test_masks_of_a_real_vocabulary_take_no_loop_over_it(
    smollm2_tokenizer: Tokenizer, smollm2_compiler: GrammarCompiler
) -> None:
    document = {f"key {at}": ["some text é", at, None, {"x": 1.5, "y": True}] for at in range(20)}
    ids = smollm2_tokenizer.encode(json.dumps(document, ensure_ascii=False, indent=1), add_bos=False)
    state = smollm2_compiler.start(JsonGrammar("{}"))
    for token_id in ids:
        assert lines_run(state.mask) < 200
        mask = state.mask()
        assert mask[token_id // 32] >> np.uint32(token_id % 32) & np.uint32(1)
        state.accept(token_id)
    assert state.finished
