"""Hostile and broken metadata: one line each, and never another error."""

from typing import Any

import pytest

from engine.errors import ModelFileError
from engine.tokenizer import Tokenizer
from engine.tokenizer.vocabulary import MAX_TOKEN_LENGTH, MAX_TOKENS
from tests.engine.tokenizer.vocabularies import Metadata, byte_pairs, sentence_pieces

TOKENS = byte_pairs()["tokenizer.ggml.tokens"]
SIZE = len(TOKENS)
PIECES = len(sentence_pieces()["tokenizer.ggml.tokens"])

BROKEN: dict[str, tuple[Metadata, str]] = {
    "nothing": ({}, "model is missing"),
    "model of a wrong type": (byte_pairs(model=3), "must be a str, not a int"),
    **{
        f"model {model}": (byte_pairs(model=model), f"'{model}' is not supported")
        for model in ("bert", "t5", "rwkv", "plamo2", "no_vocab")
    },
    "no tokens": (byte_pairs(tokens=None), "tokens is missing"),
    "empty tokens": (byte_pairs(tokens=[]), "tokens is missing"),
    "tokens no list": (byte_pairs(tokens="abc"), "must be a list"),
    "token no text": (byte_pairs(tokens=[*TOKENS[1:], 7]), "only values of type str"),
    "token twice": (byte_pairs(tokens=[*TOKENS[1:], "<tool>"]), "'<tool>' twice"),
    "token too long": (byte_pairs(tokens=[*TOKENS[1:], "x" * (MAX_TOKEN_LENGTH + 1)]), "1025 characters"),
    "token with half a pair": (byte_pairs(tokens=[*TOKENS[1:], "\ud800"]), "not Unicode text"),
    "too many tokens": (byte_pairs(tokens=["x"] * (MAX_TOKENS + 1)), f"at most {MAX_TOKENS}"),
    "types too few": (byte_pairs(token_type=[1]), f"1 entries for {SIZE} tokens"),
    "types no numbers": (byte_pairs(token_type=["a"] * SIZE), "only values of type int"),
    "types are flags": (byte_pairs(token_type=[True] * SIZE), "only values of type int"),
    "scores too few": (sentence_pieces(scores=[0.0]), f"1 entries for {PIECES} tokens"),
    "scores missing": (sentence_pieces(scores=None), "scores is missing"),
    "scores no numbers": (sentence_pieces(scores=[float("nan")] * PIECES), "no number"),
    "merges missing": (byte_pairs(merges=None), "merges is missing"),
    "merges no text": (byte_pairs(merges=[1]), "only values of type str"),
    "merge of one part": (byte_pairs(merges=["he"]), "joins no two tokens to a third: 'he'"),
    "merge of nothing": (byte_pairs(merges=[""]), "joins no two tokens"),
    "merge of strangers": (byte_pairs(merges=["hello world"]), "joins no two tokens"),
    "merge into a stranger": (byte_pairs(merges=["x y"]), "joins no two tokens"),
    "bos outside": (byte_pairs(bos_token_id=SIZE), f"is {SIZE}, but the vocabulary has {SIZE} tokens"),
    "eos negative": (byte_pairs(eos_token_id=-1), "is -1, but"),
    "eot outside": (byte_pairs(eot_token_id=1 << 40), "eot_token_id is"),
    "infill outside": (byte_pairs(fim_pad_token_id=1 << 40), "fim_pad_token_id is"),
    "bos no number": (byte_pairs(bos_token_id="1"), "must be a int"),
    "bos wanted but not named": (byte_pairs(bos_token_id=None, add_bos_token=True), "no bos_token_id"),
    "flag no flag": (byte_pairs(add_bos_token=1), "must be a bool"),
    "space flag no flag": (sentence_pieces(add_space_prefix="yes"), "must be a bool"),
    "pre no text": (byte_pairs(pre=["gpt-2"]), "must be a str"),
    "chat template no text": ({**byte_pairs(), "tokenizer.chat_template": 5}, "must be a str"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_metadata_is_refused_in_one_line(case: str) -> None:
    metadata, message = BROKEN[case]
    with pytest.raises(ModelFileError, match=message) as caught:
        Tokenizer.from_metadata(metadata)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"merges": ["h e", "h e"]},
        {"token_type": None},
        {"token_type": [99] * SIZE},
        {"tokens": [*TOKENS[:-1], ""]},
        {"bos_token_id": None, "eos_token_id": None},
        {"tokens": [*TOKENS[:-2], " h", " he"], "merges": [" h e", "h e"]},
    ],
    ids=["merge twice", "no types", "unheard types", "empty token", "no special tokens", "merge of a space"],
)
def test_oddities_that_llama_cpp_takes_are_taken(changes: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_metadata(byte_pairs(**changes))
    assert tokenizer.text(tokenizer.encode("he")[0]) == "he"


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("<|eot_id|>", True),
        ("<|fim_pad|>", True),
        ("<|repo_name|>", True),
        ("<|file_sep|>", True),
        ("<|fim_prefix|>", False),
        ("<|fim_middle|>", False),
        ("<|im_start|>", False),
    ],
)
def test_well_known_names_end_a_reply(name: str, ends: bool) -> None:
    tokenizer = Tokenizer.from_metadata(byte_pairs(tokens=[*TOKENS[:-1], name]))
    assert (SIZE - 1 in tokenizer.end_ids) is ends


def test_sentence_pieces_that_name_no_specials_have_the_usual_ones() -> None:
    tokenizer = Tokenizer.from_metadata(
        sentence_pieces(bos_token_id=None, eos_token_id=None, unknown_token_id=None)
    )
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


def test_the_files_own_lists_are_left_alone() -> None:
    metadata = byte_pairs(token_type=[1] * SIZE)
    Tokenizer.from_metadata(metadata)
    assert metadata["tokenizer.ggml.token_type"] == [1] * SIZE
