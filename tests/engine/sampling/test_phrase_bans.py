import pytest

from engine.sampling.phrase_bans import PhraseBans
from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex, lowered


@pytest.mark.parametrize("phrases", [("th",), ("T", " THE"), ("im",), ("é",), ("",), ()])
def test_exactly_the_tokens_that_hold_a_phrase(gpt2_tokenizer: Tokenizer, phrases: tuple[str, ...]) -> None:
    found = PhraseBans(gpt2_tokenizer, PieceIndex(gpt2_tokenizer)).tokens(phrases)
    expected = set()
    for token in range(gpt2_tokenizer.vocab_size):
        text = gpt2_tokenizer.piece(token).decode(errors="ignore")
        if any(phrase and lowered(phrase) in lowered(text) for phrase in phrases):
            expected.add(token)
    assert found == expected
    assert not any(gpt2_tokenizer.is_control(token) for token in found)
