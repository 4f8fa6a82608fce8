"""Ids that llama.cpp gave for the same texts and files."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizer import Tokenizer

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "tokenize.json").read_text()
)
FIXTURES = {"SmolLM2-135M-Instruct.Q4_1": "smollm2_tokenizer", "gemma-3-270m-q4_k_m": "gemma"}


@pytest.mark.parametrize("file", GOLDEN)
def test_ids_are_those_of_llama_cpp(file: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(FIXTURES[file])
    for case in GOLDEN[file]:
        ids = tokenizer.encode(case["text"], parse_special=case["parse_special"], add_bos=False)
        assert ids == case["ids"], case["text"]
        assert tokenizer.decode(ids, render_special=True) == case["text"]


def test_smollm2_follows_its_file(smollm2_tokenizer: Tokenizer) -> None:
    assert smollm2_tokenizer.vocab_size == 49152
    assert (smollm2_tokenizer.bos_id, smollm2_tokenizer.eos_id) == (1, 2)
    assert (smollm2_tokenizer.add_bos, smollm2_tokenizer.add_eos, smollm2_tokenizer.add_space_prefix) == (
        False,
        False,
        False,
    )
    # llama.cpp takes the name of a repository, an infill token, for an end too
    assert {smollm2_tokenizer.text(i) for i in smollm2_tokenizer.end_ids} == {
        "<|endoftext|>",
        "<|im_end|>",
        "<reponame>",
    }
    assert smollm2_tokenizer.chat_template is not None
    assert smollm2_tokenizer.chat_template.render([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_gemma_follows_its_file(gemma: Tokenizer) -> None:
    assert gemma.vocab_size == 262144
    assert (gemma.bos_id, gemma.eos_id) == (2, 1)
    assert (gemma.add_bos, gemma.add_eos, gemma.add_space_prefix) == (True, False, False)
    assert {gemma.text(i) for i in gemma.end_ids} == {"<eos>", "<end_of_turn>", "</s>"}
    assert gemma.chat_template is None
    assert gemma.encode("Hi") == [2, *gemma.encode("Hi", add_bos=False)]
    assert gemma.encode("<bos>Hi") == gemma.encode("Hi")


# SmolLM2 has no tokens for some control characters, nor for the bytes that begin the higher, empty planes.
# In the vocabulary of gemma U+2581 is a space.
@given(
    st.text(
        st.characters(max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cc"], exclude_characters="\u2581")
        | st.sampled_from("\t\n\r")
    )
)
def test_both_files_give_every_text_back(smollm2_tokenizer: Tokenizer, gemma: Tokenizer, text: str) -> None:
    for tokenizer in (smollm2_tokenizer, gemma):
        for parse_special in (True, False):
            ids = tokenizer.encode(text, parse_special=parse_special, add_bos=False)
            assert tokenizer.decode(ids, render_special=True) == text
