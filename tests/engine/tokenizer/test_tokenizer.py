import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.tokenizer import Tokenizer
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS
from tests.engine.tokenizer.vocabularies import CONTROL, Metadata, byte_pairs, sentence_pieces

BYTE_PAIRS = Tokenizer.from_metadata(byte_pairs())
SENTENCE_PIECES = Tokenizer.from_metadata(sentence_pieces())


def names(tokenizer: Tokenizer, text: str, *, parse_special: bool = True) -> list[str]:
    ids = tokenizer.encode(text, parse_special=parse_special, add_bos=False)
    return [tokenizer.text(i) for i in ids]


def test_byte_pairs_merge_by_rank_within_words() -> None:
    assert names(BYTE_PAIRS, "hello well") == ["hell", "o", "Ġw", "e", "ll"]


def test_sentence_pieces_merge_by_score_across_words() -> None:
    assert names(SENTENCE_PIECES, "hello world") == ["▁hello", "▁world"]


def test_characters_without_a_piece_become_bytes() -> None:
    assert names(SENTENCE_PIECES, "é") == ["▁", "<0xC3>", "<0xA9>"]


def test_sentence_pieces_without_prefix() -> None:
    tokenizer = Tokenizer.from_metadata(sentence_pieces(add_space_prefix=False))
    assert names(tokenizer, "hello world") == ["hello", "▁world"]
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"


def test_prefix_goes_before_each_text_between_special_tokens() -> None:
    assert names(SENTENCE_PIECES, "hello</s>hello") == ["▁hello", "</s>", "▁hello"]


@pytest.mark.parametrize(
    ("tokenizer", "control", "user"),
    [(BYTE_PAIRS, "<|im_end|>", "<tool>"), (SENTENCE_PIECES, "</s>", "<tool>")],
    ids=["bpe", "spm"],
)
def test_control_tokens_only_when_parsed_but_user_defined_always(
    tokenizer: Tokenizer, control: str, user: str
) -> None:
    text = f"h{control}{user}"
    assert {control, user} <= set(names(tokenizer, text))
    plain = names(tokenizer, text, parse_special=False)
    assert control not in plain
    assert user in plain


@pytest.mark.parametrize("make", [byte_pairs, sentence_pieces])
def test_bos_follows_file_and_argument_and_is_never_doubled(make: Callable[..., Metadata]) -> None:
    adds, adds_not = (Tokenizer.from_metadata(make(add_bos_token=value)) for value in (True, False))
    bos = adds.bos_id
    assert bos is not None
    assert adds.encode("he")[0] == bos == adds_not.encode("he", add_bos=True)[0]
    assert bos not in adds_not.encode("he")
    assert bos not in adds.encode("he", add_bos=False)
    assert adds.encode(adds.text(bos) + "he").count(bos) == 1
    # the name of the token in plain text is no BOS
    assert adds.encode(adds.text(bos), parse_special=False)[0] == bos
    assert adds.encode("") == [bos]


def test_files_that_do_not_speak_of_bos_follow_their_family() -> None:
    assert SENTENCE_PIECES.add_bos
    assert SENTENCE_PIECES.encode("he")[0] == SENTENCE_PIECES.bos_id
    by_family = {pre: Tokenizer.from_metadata(byte_pairs(pre=pre)).add_bos for pre in PRE_TOKENIZERS}
    assert {pre for pre, adds in by_family.items() if adds} == {
        *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        *("jina-v5-nano", "tekken"),
    }
    assert not Tokenizer.from_metadata(byte_pairs(pre=None)).add_bos


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_a_file_that_speaks_of_bos_is_followed(pre: str, says: bool) -> None:
    assert Tokenizer.from_metadata(byte_pairs(pre=pre, add_bos_token=says)).add_bos is says


def test_pieces_of_every_type() -> None:
    ids = {BYTE_PAIRS.text(i): i for i in range(BYTE_PAIRS.vocab_size)}
    assert BYTE_PAIRS.piece(ids["Ġw"]) == b" w"
    assert BYTE_PAIRS.piece(ids["Ã"]) == b"\xc3"
    assert BYTE_PAIRS.piece(ids["<tool>"]) == b"<tool>"
    assert BYTE_PAIRS.piece(ids["<|unused|>"]) == b""
    assert BYTE_PAIRS.piece(ids["<|im_end|>"]) == b""
    assert BYTE_PAIRS.piece(ids["<|im_end|>"], render_special=True) == b"<|im_end|>"
    assert SENTENCE_PIECES.piece(3 + 0xFF) == b"\xff"
    assert SENTENCE_PIECES.piece(0) == b""
    assert BYTE_PAIRS.is_control(ids["<|im_end|>"])
    assert not BYTE_PAIRS.is_control(ids["<tool>"])


@pytest.mark.parametrize("token_id", [-1, 1 << 40])
def test_ids_outside_the_vocabulary_are_the_clients_fault(token_id: int) -> None:
    for use in (BYTE_PAIRS.piece, BYTE_PAIRS.text, BYTE_PAIRS.is_control, lambda i: BYTE_PAIRS.decode([i])):
        with pytest.raises(RequestError, match="outside the vocabulary"):
            use(token_id)


@given(st.text())
def test_decoding_gives_the_text_back(text: str) -> None:
    assert BYTE_PAIRS.decode(BYTE_PAIRS.encode(text, parse_special=False)) == text
    if "▁" not in text:
        assert SENTENCE_PIECES.decode(SENTENCE_PIECES.encode(text, parse_special=False)) == text


def test_surrogates_are_paired_or_replaced() -> None:
    assert BYTE_PAIRS.decode(BYTE_PAIRS.encode("a\ud83d\ude00b\ud800c")) == "a😀b\ufffdc"


def test_a_word_that_is_a_token_stays_whole_where_the_family_ignores_merges() -> None:
    tokens = [*byte_pairs()["tokenizer.ggml.tokens"], "lo"]
    types = [*byte_pairs()["tokenizer.ggml.token_type"], 1]
    merging, whole = (
        Tokenizer.from_metadata(byte_pairs(tokens=tokens, token_type=types, pre=pre))
        for pre in ("gpt-2", "llama-bpe")
    )
    assert names(merging, "lo") == ["l", "o"]
    assert names(whole, "lo") == ["lo"]
    assert (merging.add_bos, whole.add_bos) == (False, True)


def test_well_known_ends_are_control_tokens_whatever_the_file_says() -> None:
    types = byte_pairs()["tokenizer.ggml.token_type"]
    tokenizer = Tokenizer.from_metadata(
        byte_pairs(token_type=[1] * len(types), eos_token_id=0, eot_token_id=1, eom_token_id=2)
    )
    end = tokenizer.encode("<|im_end|>")
    assert len(end) == 1
    assert tokenizer.end_ids == {0, 1, 2, *end}
    assert tokenizer.is_control(end[0])


def test_end_of_a_part_does_not_end_a_reply_of_several_parts() -> None:
    base = byte_pairs()
    extra = ["<|end|>", "<|return|>", "<|call|>"]
    tokenizer = Tokenizer.from_metadata(
        byte_pairs(
            tokens=base["tokenizer.ggml.tokens"] + extra,
            token_type=base["tokenizer.ggml.token_type"] + [CONTROL] * 3,
        )
    )
    assert {tokenizer.text(i) for i in tokenizer.end_ids} == {"<|im_end|>", "<|return|>", "<|call|>"}


def test_phi3_special_tokens_swallow_the_space_after_them() -> None:
    metadata = {**byte_pairs(), "general.name": "Phi-3 mini"}
    assert names(Tokenizer.from_metadata(metadata), "<|im_end|>\n he") == ["<|im_end|>", "he"]


def test_encoding_lets_other_threads_run() -> None:
    """Were the interpreter lock kept, `start` would return only after the encoding."""
    encoder = threading.Thread(target=SENTENCE_PIECES.encode, args=("hello world" * 50_000,))
    encoder.start()
    alive = encoder.is_alive()
    encoder.join()
    assert alive


def test_threads_do_not_disturb_each_other() -> None:
    texts = [f"{'hello ' * i}<tool>world" for i in range(50)]
    alone = [SENTENCE_PIECES.encode(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(SENTENCE_PIECES.encode, texts * 4)) == alone * 4
