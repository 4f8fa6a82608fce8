"""The end of a long text, without the work for its beginning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizer import Tokenizer
from engine.tokenizer.tokenizer import _MARGIN
from tests.engine.tokenizer.vocabularies import byte_pairs, sentence_pieces

TOKENIZERS = [Tokenizer.from_metadata(byte_pairs()), Tokenizer.from_metadata(sentence_pieces())]
WORDS = st.lists(st.sampled_from(["hello", "world", " ", "\n", "é", "well", "</s>", "<|im_end|>", "   "]))


class Spy:
    """Counts the characters that a tokenizer is given."""

    def __init__(self, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.characters = 0
        encode = tokenizer.encode

        def counted(text: str, **others: bool | None) -> list[int]:
            self.characters += len(text)
            return encode(text, **others)  # type: ignore[arg-type]

        monkeypatch.setattr(tokenizer, "encode", counted)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bpe", "spm"])
@given(words=WORDS, times=st.integers(1, 200), tokens=st.integers(1, 40))
def test_the_last_tokens_are_those_of_the_whole(
    tokenizer: Tokenizer, words: list[str], times: int, tokens: int
) -> None:
    text = "".join(words) * times
    whole, end = tokenizer.encode(text), tokenizer.encode_end(text, tokens)
    assert end[-tokens:] == whole[-tokens:]
    assert (len(end) > tokens) == (len(whole) > tokens)
    assert end[:1] == whole[:1] if tokenizer.add_bos else True


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bpe", "spm"])
@pytest.mark.parametrize("unit", ["hello world ", " ", "a", "\n", "é"])
def test_the_work_is_bounded_by_the_tokens(
    tokenizer: Tokenizer, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(tokenizer, monkeypatch)
    ids = tokenizer.encode_end(unit * 3_000_000, 100)
    assert len(ids) > 100
    longest = max(len(tokenizer.text(token)) for token in range(tokenizer.vocab_size))
    assert spy.characters <= 8 * max(8, longest) * (100 + _MARGIN)


def test_a_text_that_fits_is_encoded_whole() -> None:
    text = "hello world " * 20
    for tokenizer in TOKENIZERS:
        assert tokenizer.encode_end(text, 4096) == tokenizer.encode(text)
