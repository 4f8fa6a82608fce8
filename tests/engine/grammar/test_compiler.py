from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.errors import RequestError
from engine.grammar import GrammarCompiler, compiler
from engine.grammar.compiled import CompiledGrammar
from engine.grammar.tokens import GrammarTokens
from engine.grammar.vocabulary import MAX_TOKEN_BYTES, LibraryVocabulary
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar, JsonGrammar
from tests.engine.grammar.walks import BYTE_PAIRS, SENTENCE_PIECES, WITHOUT_PREFIX, admits, allowed
from tests.engine.tokenizer.vocabularies import NORMAL, byte_pairs, sentence_pieces

ANY_TEXT = GbnfGrammar("root ::= .*")


def test_the_tokens_of_any_text() -> None:
    """All but control tokens and those without text; bytes that begin no character come later."""
    for tokenizer in (BYTE_PAIRS, SENTENCE_PIECES):
        ids = allowed(GrammarCompiler(tokenizer).start(ANY_TEXT), tokenizer)
        for token_id in range(tokenizer.vocab_size):
            piece = tokenizer.piece(token_id)
            begins = piece[:1] < b"\x80" or b"\xc2" <= piece[:1] <= b"\xf4"
            expected = token_id in tokenizer.end_ids or (bool(piece) and begins)
            assert (token_id in ids) == expected, tokenizer.text(token_id)


def test_tokens_with_the_same_text_are_equal() -> None:
    """The sentence pieces have `h` as a byte and as a piece."""
    twins = {
        token_id for token_id in range(SENTENCE_PIECES.vocab_size) if SENTENCE_PIECES.piece(token_id) == b"h"
    }
    assert len(twins) == 2
    for token_id in twins:
        state = GrammarCompiler(SENTENCE_PIECES).start(GbnfGrammar('root ::= "h" "or"'))
        assert allowed(state, SENTENCE_PIECES) == twins
        state.accept(token_id)
        assert twins.isdisjoint(allowed(state, SENTENCE_PIECES))


def test_all_end_tokens_end() -> None:
    metadata = byte_pairs(eot_token_id=256)
    tokenizer = Tokenizer.from_metadata(metadata)
    assert len(tokenizer.end_ids) == 2
    for end in tokenizer.end_ids:
        state = GrammarCompiler(tokenizer).start(GbnfGrammar('root ::= "a"?'))
        assert tokenizer.end_ids < allowed(state, tokenizer)
        state.accept(end)
        assert state.finished


def test_a_vocabulary_without_end_tokens() -> None:
    metadata = byte_pairs(eos_token_id=None)
    metadata["tokenizer.ggml.tokens"] = [
        "<|other|>" if name == "<|im_end|>" else name for name in metadata["tokenizer.ggml.tokens"]
    ]
    tokenizer = Tokenizer.from_metadata(metadata)
    assert not tokenizer.end_ids
    state = GrammarCompiler(tokenizer).start(GbnfGrammar('root ::= "a"'))
    (only,) = allowed(state, tokenizer)
    state.accept(only)
    assert state.finished
    assert not allowed(state, tokenizer)


def test_tokens_too_long_for_the_library_match_nothing() -> None:
    metadata = byte_pairs()
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "é" * 1024, "x" * 1001]
    metadata["tokenizer.ggml.token_type"] = [*metadata["tokenizer.ggml.token_type"], 4, NORMAL]
    tokenizer = Tokenizer.from_metadata(metadata)
    assert len(tokenizer.piece(tokenizer.vocab_size - 2)) > MAX_TOKEN_BYTES
    ids = allowed(GrammarCompiler(tokenizer).start(ANY_TEXT), tokenizer)
    assert {tokenizer.vocab_size - 2, tokenizer.vocab_size - 1}.isdisjoint(ids)
    assert tokenizer.encode("x")[0] in ids


def test_a_vocabulary_too_large_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.grammar.tokens.MAX_BYTES", 100)
    with pytest.raises(RequestError, match="vocabulary is too large for grammars"):
        GrammarCompiler(BYTE_PAIRS).check(ANY_TEXT)


@pytest.mark.parametrize(
    "tokenizer", [BYTE_PAIRS, SENTENCE_PIECES, WITHOUT_PREFIX], ids=["bpe", "spm", "bare"]
)
@pytest.mark.parametrize("text", ["hello world", " hello", "é😀", "\nx", "<|im_end|>", "<tool>", ""])
def test_tokenised_text_is_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = LibraryVocabulary(tokenizer)(text)
    assert b"".join(map(tokenizer.piece, ids)).decode() == text
    assert tokenizer.end_ids.isdisjoint(ids)


def test_tokenised_text_is_the_tokenizers() -> None:
    names = [SENTENCE_PIECES.text(token_id) for token_id in LibraryVocabulary(SENTENCE_PIECES)("hello world")]
    assert names == ["hello", "▁world"]


def test_text_that_the_tokenizer_does_not_give_back() -> None:
    """A vocabulary without bytes has no tokens but its pieces: the longest are taken."""
    metadata = sentence_pieces()
    metadata["tokenizer.ggml.token_type"] = [
        5 if kind == 6 else kind for kind in metadata["tokenizer.ggml.token_type"]
    ]
    tokenizer = Tokenizer.from_metadata(metadata)
    vocabulary = LibraryVocabulary(tokenizer)
    assert [tokenizer.text(token_id) for token_id in vocabulary("hellor")] == ["hello", "r"]
    assert vocabulary("hx") == [*vocabulary("h"), tokenizer.eos_id]


def test_compiled_grammars_are_kept_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "MAX_COMPILED", 2)
    compiled: list[str] = []

    def build(lark: str, tokens: GrammarTokens) -> CompiledGrammar:
        compiled.append(lark)
        return CompiledGrammar(lark, tokens)

    monkeypatch.setattr(compiler, "CompiledGrammar", build)
    grammars = [GbnfGrammar(f'root ::= "{number}"') for number in range(3)]
    subject = GrammarCompiler(BYTE_PAIRS)
    for grammar in (grammars[0], grammars[1], grammars[0], grammars[2], grammars[0]):
        subject.check(grammar)
        subject.start(grammar)
    assert len(compiled) == 3
    subject.start(grammars[1])
    assert len(compiled) == 4


def test_many_threads() -> None:
    subject = GrammarCompiler(BYTE_PAIRS)
    grammars = [GbnfGrammar(f'root ::= "{number % 5}"') for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        masks = list(pool.map(lambda grammar: subject.start(grammar).mask(), grammars))
    for number, mask in enumerate(masks):
        assert np.array_equal(mask, masks[number % 5])


def test_the_states_of_one_grammar_are_independent() -> None:
    subject = GrammarCompiler(BYTE_PAIRS)
    first, second = (subject.start(JsonGrammar("{}")) for _ in range(2))
    before = second.mask()
    first.accept(BYTE_PAIRS.encode("[")[0])
    assert np.array_equal(second.mask(), before)
    assert admits(BYTE_PAIRS, JsonGrammar("{}"), "[1]", subject)
