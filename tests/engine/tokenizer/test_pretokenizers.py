import logging

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

from engine.tokenizer.pretokenizers import PRE_TOKENIZERS, pre_tokenizer

TEXT = "It's 1234 naïve  WORDS,\n\n  日本語! x=2;"


def words(name: str, text: str) -> list[str]:
    splits = [Split(Regex(pattern), "isolated") for pattern in pre_tokenizer(name).patterns]
    return [word for word, _ in Sequence(splits).pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_expression_compiles_and_loses_nothing(name: str) -> None:
    assert "".join(words(name, TEXT)) == TEXT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["It", "'s", " 1234", " naïve"]),
        ("smollm", ["It", "'s", " ", "1", "2", "3", "4", " naïve"]),
        ("llama-bpe", ["It", "'s", " ", "123", "4", " naïve"]),
        ("qwen2", ["It", "'s", " ", "1", "2", "3", "4", " naïve"]),
        ("tekken", ["It", "'s", " ", "1", "2", "3", "4", " naïve"]),
        ("gpt-4o", ["It's", " ", "123", "4", " naïve"]),
        # the third expression's range of symbols takes in the plain letters, too
        ("deepseek-llm", ["It", "'", "s", " ", "1234", " na", "ï", "ve"]),
        ("deepseek-coder", ["It", "'", "s", " ", "1", "2", "3", "4", " naïve"]),
        ("deepseek-v3", ["It", "'s", " ", "123", "4", " naïve"]),
        ("falcon", ["It", "'", "s", " ", "123", "4", " naïve"]),
        ("default", ["It", "'", "s", " ", "123", "4", " naïve"]),
        ("bloom", ["It's", " 1234", " naïve"]),
        ("viking", ["It's", " ", "1", "2", "3", "4", " naïve"]),
    ],
)
def test_words(name: str, expected: list[str]) -> None:
    assert words(name, "It's 1234 naïve") == expected


@pytest.mark.parametrize("name", [None, "of tomorrow"])
def test_what_is_not_known_falls_back_with_a_warning(
    name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert pre_tokenizer(name) is PRE_TOKENIZERS["default"]
    assert "default" in caplog.text
