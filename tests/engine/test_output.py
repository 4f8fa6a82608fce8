import codecs
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.output import Output, Verdict
from engine.tokenizer import Tokenizer
from engine.types import FinishReason, GenerationRequest, TokenPrompt

BOS, EOS = 1, 2

pieces = st.sampled_from([b"a", b"b", b"ab", b"c", b" the", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\xff"])
stop_strings = st.lists(st.text("abcé€ ", min_size=0, max_size=5), max_size=3)


def output(tokenizer: Tokenizer, *stop: str, **others: Any) -> Output:
    return Output(GenerationRequest("x", TokenPrompt((0,)), 100, stop=stop, **others), tokenizer)


def tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token a byte."""
    found = {tokenizer.piece(token): token for token in range(tokenizer.vocab_size)}
    return [found[bytes([byte])] for byte in text.encode()]


def push(out: Output, ids: list[int]) -> Verdict:
    """All of the tokens, up to the end; the joined text and the last verdict's finish."""
    text = ""
    for token in ids:
        verdict = out.push(token)
        text += verdict.text
        if verdict.finish is not None:
            return Verdict(text, verdict.finish)
    return Verdict(text)


def overlap(text: str, stops: list[str]) -> int:
    """The longest end of the text that begins, but is not, a stop string."""
    lengths = range(len(text) + 1)
    return max(n for n in lengths if n == 0 or any(s[:n] == text[-n:] and n < len(s) for s in stops))


@settings(max_examples=400, deadline=None)
@given(split=st.lists(pieces, max_size=14), stops=stop_strings, trim=st.booleans())
def test_any_split_gives_the_text_of_the_whole(
    gpt2_tokenizer: Tokenizer, split: list[bytes], stops: list[str], trim: bool
) -> None:
    by_piece = {gpt2_tokenizer.piece(token): token for token in range(gpt2_tokenizer.vocab_size)}
    ids: list[int] = []
    for piece in split:
        whole_or_bytes = [piece] if piece in by_piece else [bytes([byte]) for byte in piece]
        ids += [by_piece[part] for part in whole_or_bytes]
    out = output(gpt2_tokenizer, *stops, trim_stop=trim)
    stops = [stop for stop in stops if stop]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    whole, sent = "", ""
    for token in ids:
        verdict = out.push(token)
        sent += verdict.text
        whole += decoder.decode(gpt2_tokenizer.piece(token))
        places = [whole.find(stop) for stop in stops if stop in whole]
        if places:
            assert verdict.finish is FinishReason.STOP
            assert sent == (whole[: min(places)] if trim else whole)
            return
        assert verdict.finish is None
        # what is withheld is what may begin a stop string, and nothing more
        assert sent == whole[: len(whole) - (overlap(whole, stops) if trim else 0)]
    assert sent + out.flush() == whole


@pytest.mark.parametrize(("trim", "expected"), [(True, "one "), (False, "one the")])
def test_a_stop_string_within_a_token(gpt2_tokenizer: Tokenizer, trim: bool, expected: str) -> None:
    (the,) = gpt2_tokenizer.encode(" the")
    out = output(gpt2_tokenizer, "th", trim_stop=trim)
    ids = [*tokens(gpt2_tokenizer, "one"), the]
    # without trimming the rest of the token stays
    assert push(out, ids) == Verdict(expected, FinishReason.STOP)


def test_the_first_of_several_stop_strings_counts(gpt2_tokenizer: Tokenizer) -> None:
    (the,) = gpt2_tokenizer.encode(" the")
    assert output(gpt2_tokenizer, "e", "th").push(the) == Verdict(" ", FinishReason.STOP)


def test_a_beginning_that_comes_to_nothing_is_given_out(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "\nUser:")
    texts = [out.push(token).text for token in tokens(gpt2_tokenizer, "a\nUse b")]
    assert texts == ["a", "", "", "", "", "\nUse ", "b"]


def test_what_is_held_back_comes_with_the_flush(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "\nUser:")
    assert push(out, tokens(gpt2_tokenizer, "a\nUser")) == Verdict("a")
    assert out.flush() == "\nUser"
    assert out.flush() == ""


def test_the_end_token_ends_is_hidden_and_releases_what_was_held(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "ab")
    assert push(out, [*tokens(gpt2_tokenizer, "xa"), EOS]) == Verdict("xa", FinishReason.EOS)


def test_ignore_eos_hides_the_token_and_goes_on(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, ignore_eos=True)
    assert push(out, [*tokens(gpt2_tokenizer, "x"), EOS, *tokens(gpt2_tokenizer, "y")]) == Verdict("xy")


def test_render_special_shows_it(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, render_special=True)
    assert push(out, [BOS, EOS]) == Verdict("<|im_start|><|im_end|>", FinishReason.EOS)


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_special_token_as_a_stop_string(gpt2_tokenizer: Tokenizer, ignore_eos: bool) -> None:
    out = output(gpt2_tokenizer, "<|im_start|>", "<|im_end|>", ignore_eos=ignore_eos)
    assert push(out, [*tokens(gpt2_tokenizer, "x"), BOS]) == Verdict("x", FinishReason.STOP)
    out = output(gpt2_tokenizer, "<|im_end|>", ignore_eos=True)
    assert push(out, [*tokens(gpt2_tokenizer, "x"), EOS]) == Verdict("x", FinishReason.STOP)


def test_a_rendered_special_stop_is_cut_like_any_other(gpt2_tokenizer: Tokenizer) -> None:
    ids = [*tokens(gpt2_tokenizer, "x"), BOS]
    cut = output(gpt2_tokenizer, "<|im_start|>", render_special=True)
    assert push(cut, ids) == Verdict("x", FinishReason.STOP)
    kept = output(gpt2_tokenizer, "<|im_start|>", render_special=True, trim_stop=False)
    assert push(kept, ids) == Verdict("x<|im_start|>", FinishReason.STOP)


def test_an_ordinary_token_is_no_special_stop(gpt2_tokenizer: Tokenizer) -> None:
    # " the" is one token, but text: it also stops where it lies across tokens
    out = output(gpt2_tokenizer, " the")
    assert push(out, tokens(gpt2_tokenizer, "a the")) == Verdict("a", FinishReason.STOP)


def test_characters_are_never_halved(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer)
    texts = [out.push(token).text for token in tokens(gpt2_tokenizer, "é€😀")]
    assert texts == ["", "é", "", "", "€", "", "", "", "😀"]
    push(out, tokens(gpt2_tokenizer, "😀")[:3])
    assert out.flush() == ""


def test_an_empty_stop_string_is_none(gpt2_tokenizer: Tokenizer) -> None:
    assert push(output(gpt2_tokenizer, ""), tokens(gpt2_tokenizer, "abc")) == Verdict("abc")
