import codecs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.tokenizer import Detokenizer, Tokenizer
from tests.engine.tokenizer.vocabularies import byte_pairs, sentence_pieces

BYTE_PAIRS = Tokenizer.from_metadata(byte_pairs())
SENTENCE_PIECES = Tokenizer.from_metadata(sentence_pieces())


def stream(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


def endings(text: str) -> tuple[str, str, str]:
    """A text with what an unfinished character at its end may show as: half a surrogate as two U+FFFD."""
    return text, text + "\ufffd", text + "\ufffd\ufffd"


@pytest.mark.parametrize("tokenizer", [BYTE_PAIRS, SENTENCE_PIECES], ids=["bpe", "spm"])
@given(data=st.data())
def test_the_parts_make_the_whole(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    raw = b"".join(map(tokenizer.piece, ids))
    whole = raw.decode(errors="replace")
    text = "".join(stream(tokenizer, ids))
    # only an unfinished character at the end may be missing
    assert whole in endings(text)
    if whole != text:
        assert codecs.utf_8_decode(raw, "replace", False)[1] < len(raw)


@given(st.lists(st.integers(0, 255)))
@example([0xED, 0xA1])
def test_any_bytes(values: list[int]) -> None:
    ids = [3 + value for value in values]
    whole = bytes(values).decode(errors="replace")
    assert whole in endings("".join(stream(SENTENCE_PIECES, ids)))


def test_characters_come_whole() -> None:
    text = "👨‍👩‍👧 é日"
    parts = stream(BYTE_PAIRS, BYTE_PAIRS.encode(text))
    assert [part for part in parts if part] == list(text)


def test_bad_bytes_in_the_middle_show_and_an_unfinished_end_does_not() -> None:
    ids = [3 + byte for byte in b"\xc3\xffa\xe2\x82"]
    assert stream(SENTENCE_PIECES, ids) == ["", "\ufffd\ufffd", "a", "", "", ""]


def test_a_leading_space_is_kept() -> None:
    ids = SENTENCE_PIECES.encode("hello world", add_bos=False)
    assert stream(SENTENCE_PIECES, ids) == [" hello", " world", ""]


def test_special_tokens_show_only_when_asked() -> None:
    end = BYTE_PAIRS.encode("<|im_end|>")[0]
    assert Detokenizer(BYTE_PAIRS).push(end) == ""
    assert Detokenizer(BYTE_PAIRS, render_special=True).push(end) == "<|im_end|>"


def test_a_flushed_detokenizer_starts_anew() -> None:
    detokenizer = Detokenizer(SENTENCE_PIECES)
    detokenizer.push(3 + 0xC3)
    assert detokenizer.flush() == ""
    assert detokenizer.push(3 + ord("a")) == "a"


def test_a_restored_state_is_within_a_character() -> None:
    detokenizer = Detokenizer(SENTENCE_PIECES)
    assert detokenizer.push(3 + 0xC3) == ""
    state = detokenizer.state
    assert detokenizer.push(3 + 0xA9) == "é"
    assert detokenizer.push(3 + ord("a")) == "a"
    detokenizer.restore(state)
    assert detokenizer.push(3 + 0xA8) == "è"


def test_ids_outside_the_vocabulary_are_the_clients_fault() -> None:
    with pytest.raises(RequestError, match="outside the vocabulary"):
        Detokenizer(BYTE_PAIRS).push(-1)
