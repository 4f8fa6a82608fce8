"""One request's tokens, text and grammar together; `test_thinking` has the budget of thoughts."""

from typing import Any

import numpy as np

from engine.generation import Generation
from engine.grammar import GrammarCompiler
from engine.sampling import Draw
from engine.tokenizer import Tokenizer
from engine.types import FinishReason, GbnfGrammar
from tests.engine.driving import request


def bound(tokenizer: Tokenizer, rule: str, max_tokens: int = 99, **others: Any) -> Generation:
    grammar = GbnfGrammar(f"root ::= {rule}")
    given = request("x", [5], max_tokens, grammar=grammar, **others)
    return Generation(given, tokenizer, GrammarCompiler(tokenizer).start(grammar))


def letters(tokenizer: Tokenizer, text: str) -> list[int]:
    found = {tokenizer.piece(token): token for token in range(tokenizer.vocab_size)}
    return [found[letter.encode()] for letter in text]


def allowed(generation: Generation, tokenizer: Tokenizer) -> set[str]:
    """What may come next, of the tokens that are one character."""
    mask = generation.row.allowed
    assert mask is not None
    ids = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
    pieces = (tokenizer.piece(token).decode(errors="replace") for token in ids.tolist())
    return {piece for piece in pieces if len(piece) == 1}


def test_a_grammar_goes_back_with_the_tokens(gpt2_tokenizer: Tokenizer) -> None:
    it = bound(gpt2_tokenizer, '"x" [a-d]{3} "."', banned_phrases=("bad",))
    verdicts = [it.accept(Draw(token)) for token in letters(gpt2_tokenizer, "xbad")]
    assert [verdict.rewind for verdict in verdicts] == [0, 0, 0, 3]
    assert allowed(it, gpt2_tokenizer) == set("abcd")
    assert it.row.banned == set(letters(gpt2_tokenizer, "b"))
    for token in letters(gpt2_tokenizer, "ccc"):
        assert not it.row.banned.intersection([token])
        it.accept(Draw(token))
    assert allowed(it, gpt2_tokenizer) == {"."}


def test_the_end_of_a_grammar_is_an_end_of_the_model_s_own(gpt2_tokenizer: Tokenizer) -> None:
    """Also where it is the last token that may come. What was held back comes with it."""
    for max_tokens in (2, 99):
        it = bound(gpt2_tokenizer, '"ab"', max_tokens, stop=("bx",))
        a, b = (it.accept(Draw(token)) for token in letters(gpt2_tokenizer, "ab"))
        assert (a.text, a.finish) == ("a", None)
        assert (b.text, b.finish, b.tokens) == ("b", FinishReason.EOS, tuple(letters(gpt2_tokenizer, "b")))


def test_tokens_that_were_taken_back_count_towards_the_limit(gpt2_tokenizer: Tokenizer) -> None:
    it = Generation(request("x", [5], 4, banned_phrases=("ad",)), gpt2_tokenizer, None)
    verdicts = [it.accept(Draw(token)) for token in letters(gpt2_tokenizer, "xadc")]
    assert [verdict.rewind for verdict in verdicts] == [0, 0, 2, 0]
    assert [verdict.finish for verdict in verdicts] == [None, None, None, FinishReason.LENGTH]
    assert it.sequence.generated == 2
