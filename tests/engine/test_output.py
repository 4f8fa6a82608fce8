import codecs
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.output import Output, Verdict
from engine.tokenizer import Tokenizer
from engine.types import FinishReason, GenerationRequest, TokenLogprob, TokenPrompt

BOS, EOS = 1, 2

pieces = st.sampled_from([b"a", b"b", b"ab", b"c", b" the", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\xff"])
stop_strings = st.lists(st.text("abcé€ ", min_size=0, max_size=5), max_size=3)


def output(tokenizer: Tokenizer, *stop: str, **others: Any) -> Output:
    return Output(GenerationRequest("x", TokenPrompt((0,)), 100, stop=stop, **others), tokenizer)


def tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token a byte."""
    found = {tokenizer.piece(token): token for token in range(tokenizer.vocab_size)}
    return [found[bytes([byte])] for byte in text.encode()]


def push(out: Output, ids: list[int]) -> tuple[str, FinishReason | None]:
    """All of the tokens, up to the end; the joined text and the last verdict's finish."""
    text = ""
    for token in ids:
        verdict = out.push(token)
        text += verdict.text
        if verdict.finish is not None:
            return text, verdict.finish
    return text, None


def rest(out: Output) -> str:
    """What is held back when the token limit ends the request."""
    return out.flush(FinishReason.LENGTH).text


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
    assert sent + rest(out) == whole


@pytest.mark.parametrize(("trim", "expected"), [(True, "one "), (False, "one the")])
def test_a_stop_string_within_a_token(gpt2_tokenizer: Tokenizer, trim: bool, expected: str) -> None:
    (the,) = gpt2_tokenizer.encode(" the")
    out = output(gpt2_tokenizer, "th", trim_stop=trim)
    ids = [*tokens(gpt2_tokenizer, "one"), the]
    # without trimming the rest of the token stays
    assert push(out, ids) == (expected, FinishReason.STOP)


def test_the_first_of_several_stop_strings_counts(gpt2_tokenizer: Tokenizer) -> None:
    (the,) = gpt2_tokenizer.encode(" the")
    assert push(output(gpt2_tokenizer, "e", "th"), [the]) == (" ", FinishReason.STOP)


def test_a_beginning_that_comes_to_nothing_is_given_out(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "\nUser:")
    texts = [out.push(token).text for token in tokens(gpt2_tokenizer, "a\nUse b")]
    assert texts == ["a", "", "", "", "", "\nUse ", "b"]


def test_what_is_held_back_comes_with_the_flush(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "\nUser:")
    assert push(out, tokens(gpt2_tokenizer, "a\nUser")) == ("a", None)
    assert rest(out) == "\nUser"
    assert rest(out) == ""


def test_the_end_token_ends_is_hidden_and_releases_what_was_held(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "ab")
    assert push(out, [*tokens(gpt2_tokenizer, "xa"), EOS]) == ("xa", FinishReason.EOS)


def test_ignore_eos_hides_the_token_and_goes_on(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, ignore_eos=True)
    assert push(out, [*tokens(gpt2_tokenizer, "x"), EOS, *tokens(gpt2_tokenizer, "y")]) == ("xy", None)


def test_render_special_shows_it(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, render_special=True)
    assert push(out, [BOS, EOS]) == ("<|im_start|><|im_end|>", FinishReason.EOS)


@pytest.mark.parametrize(
    ("stop", "trimmed"),
    [("<|im_end|>", "ab"), ("b<|im", "a"), ("end|>", "ab<|im_"), ("<|im_end|>x", "ab<|im_end|>")],
)
def test_an_end_token_that_a_stop_string_is_in_is_the_end(
    gpt2_tokenizer: Tokenizer, stop: str, trimmed: str
) -> None:
    """End tokens come before stop strings; the text is cut as for a stop string all the same."""
    ids = [*tokens(gpt2_tokenizer, "ab"), EOS]
    for trim, expected in ((True, trimmed), (False, "ab<|im_end|>")):
        out = output(gpt2_tokenizer, stop, trim_stop=trim, render_special=True)
        assert push(out, ids) == (expected, FinishReason.EOS)
    assert push(output(gpt2_tokenizer, stop), ids) == ("ab", FinishReason.EOS)


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_special_token_as_a_stop_string(gpt2_tokenizer: Tokenizer, ignore_eos: bool) -> None:
    out = output(gpt2_tokenizer, "<|im_start|>", "<|im_end|>", ignore_eos=ignore_eos)
    assert push(out, [*tokens(gpt2_tokenizer, "x"), BOS]) == ("x", FinishReason.STOP)
    out = output(gpt2_tokenizer, "<|im_end|>", ignore_eos=True)
    assert push(out, [*tokens(gpt2_tokenizer, "x"), EOS]) == ("x", FinishReason.STOP)


def test_a_rendered_special_stop_is_cut_like_any_other(gpt2_tokenizer: Tokenizer) -> None:
    ids = [*tokens(gpt2_tokenizer, "x"), BOS]
    cut = output(gpt2_tokenizer, "<|im_start|>", render_special=True)
    assert push(cut, ids) == ("x", FinishReason.STOP)
    kept = output(gpt2_tokenizer, "<|im_start|>", render_special=True, trim_stop=False)
    assert push(kept, ids) == ("x<|im_start|>", FinishReason.STOP)


def test_an_ordinary_token_is_no_special_stop(gpt2_tokenizer: Tokenizer) -> None:
    # " the" is one token, but text: it also stops where it lies across tokens
    out = output(gpt2_tokenizer, " the")
    assert push(out, tokens(gpt2_tokenizer, "a the")) == ("a", FinishReason.STOP)


def test_characters_are_never_halved(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer)
    texts = [out.push(token).text for token in tokens(gpt2_tokenizer, "é€😀")]
    assert texts == ["", "é", "", "", "€", "", "", "", "😀"]
    push(out, tokens(gpt2_tokenizer, "😀")[:3])
    assert rest(out) == ""


def test_an_empty_stop_string_is_none(gpt2_tokenizer: Tokenizer) -> None:
    assert push(output(gpt2_tokenizer, ""), tokens(gpt2_tokenizer, "abc")) == ("abc", None)


def lower(text: str) -> str:
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


@settings(max_examples=400, deadline=None)
@given(
    drawn=st.lists(pieces, max_size=24),
    phrases=st.lists(st.text("abcé€ TH", min_size=1, max_size=4), min_size=1, max_size=3),
    stops=stop_strings,
)
def test_a_banned_phrase_is_taken_back_with_the_tokens_that_hold_it(
    gpt2_tokenizer: Tokenizer, drawn: list[bytes], phrases: list[str], stops: list[str]
) -> None:
    by_piece = {gpt2_tokenizer.piece(token): token for token in range(gpt2_tokenizer.vocab_size)}
    out = output(gpt2_tokenizer, *stops, banned_phrases=tuple(phrases))
    kept: list[int] = []
    given_out: list[int] = []
    sent = ""
    for piece in drawn:
        for token in [by_piece[piece]] if piece in by_piece else [by_piece[bytes([byte])] for byte in piece]:
            kept.append(token)
            verdict = out.push(token)
            if verdict.rewind:
                tail = Output(GenerationRequest("", TokenPrompt((0,)), 9), gpt2_tokenizer)
                whole = sent_before_rewind(tail, kept)
                assert any(lower(phrase) in lower(whole) for phrase in phrases)
                del kept[len(kept) - verdict.rewind :]
                assert len(kept) >= len(given_out), "what was given out is never taken back"
            sent += verdict.text
            given_out += verdict.tokens
            assert given_out == kept[: len(given_out)]
            assert not any(lower(phrase) in lower(sent) for phrase in phrases)
            if verdict.finish is not None:
                assert given_out == kept
                return
    last = out.flush(FinishReason.LENGTH)
    text = b"".join(map(gpt2_tokenizer.piece, kept))
    assert sent + last.text == codecs.getincrementaldecoder("utf-8")("replace").decode(text)
    assert given_out + list(last.tokens) == kept
    assert not any(lower(phrase) in lower(sent + last.text) for phrase in phrases)


def sent_before_rewind(out: Output, ids: list[int]) -> str:
    return "".join(out.push(token).text for token in ids) + rest(out)


def test_only_the_tokens_that_hold_the_phrase_go(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, banned_phrases=("Bad",))
    verdicts = [out.push(token) for token in tokens(gpt2_tokenizer, "a baD")]
    assert [(verdict.text, verdict.rewind) for verdict in verdicts] == [
        ("a", 0), (" ", 0), ("", 0), ("", 0), ("", 3),
    ]  # fmt: skip
    assert push(out, tokens(gpt2_tokenizer, "bud")) == ("bud", None)


@pytest.mark.parametrize("phrase", ["bad", "BAD", "bAd"])
@pytest.mark.parametrize("text", ["ba", "BA", "Ba"])
def test_beginnings_are_held_back_in_whatever_case(gpt2_tokenizer: Tokenizer, phrase: str, text: str) -> None:
    out = output(gpt2_tokenizer, banned_phrases=(phrase,))
    assert push(out, tokens(gpt2_tokenizer, text)) == ("", None)
    assert rest(out) == text


def test_a_token_that_may_go_back_is_held_as_a_whole(gpt2_tokenizer: Tokenizer) -> None:
    (the,) = gpt2_tokenizer.encode(" the")
    out = output(gpt2_tokenizer, banned_phrases=("hex",))
    # "he" may begin the phrase, and " t" would go with it
    verdicts = [
        out.push(token) for token in [the, *tokens(gpt2_tokenizer, "x"), the, *tokens(gpt2_tokenizer, "y")]
    ]
    assert [(verdict.text, verdict.rewind) for verdict in verdicts] == [
        ("", 0),
        ("", 2),
        ("", 0),
        (" they", 0),
    ]


def test_a_broken_character_goes_back_with_the_token_that_broke_it(gpt2_tokenizer: Tokenizer) -> None:
    by_piece = {gpt2_tokenizer.piece(token): token for token in range(gpt2_tokenizer.vocab_size)}
    out = output(gpt2_tokenizer, banned_phrases=("ab",))
    verdicts = [out.push(by_piece[piece]) for piece in (b"\xc3", b"a", b"b", b"\xa9")]
    assert [(verdict.text, verdict.rewind) for verdict in verdicts] == [("", 0), ("", 0), ("", 2), ("é", 0)]


def test_a_phrase_is_seen_before_the_stop_string_that_it_ends_with(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "d", banned_phrases=("bad",))
    assert [out.push(token).rewind for token in tokens(gpt2_tokenizer, "bad")] == [0, 0, 3]


@pytest.mark.parametrize(
    ("text", "stop", "told"), [("abc", "zz", "abc"), ("abcd", "cd", "ab"), ("ab", "bc", "ab")]
)
def test_probabilities_are_told_of_the_tokens_of_the_text(
    gpt2_tokenizer: Tokenizer, text: str, stop: str, told: str
) -> None:
    out = output(gpt2_tokenizer, stop, logprobs=0)
    found: list[TokenLogprob] = []
    for token in tokens(gpt2_tokenizer, text):
        verdict = out.push(token, TokenLogprob(token, gpt2_tokenizer.piece(token), -0.5))
        found += verdict.logprobs
        if verdict.finish is not None:
            break
    else:
        found += out.flush(FinishReason.LENGTH).logprobs
    assert b"".join(one.raw for one in found).decode() == told


def told(out: Output, ids: list[int]) -> list[int]:
    """The tokens whose probabilities are told, up to the end or to the token limit."""
    found: list[TokenLogprob] = []
    for token in ids:
        verdict = out.push(token, TokenLogprob(token, b"", -0.5))
        found += verdict.logprobs
        if verdict.finish is not None:
            return [one.token_id for one in found]
    return [one.token_id for one in (*found, *out.flush(FinishReason.LENGTH).logprobs)]


def test_a_token_that_is_cut_within_is_of_the_text(gpt2_tokenizer: Tokenizer) -> None:
    (the,) = gpt2_tokenizer.encode(" the")
    ids = [*tokens(gpt2_tokenizer, "a"), the]
    assert told(output(gpt2_tokenizer, "he"), ids) == ids
    assert told(output(gpt2_tokenizer, " the"), ids) == ids[:1]


def test_a_hidden_end_is_not_of_the_text_but_one_that_goes_on_is(gpt2_tokenizer: Tokenizer) -> None:
    ids = [*tokens(gpt2_tokenizer, "ab"), EOS]
    assert told(output(gpt2_tokenizer), ids) == ids[:2]
    assert told(output(gpt2_tokenizer, render_special=True), ids) == ids
    assert told(output(gpt2_tokenizer, ignore_eos=True), ids) == ids


def test_of_a_character_that_the_limit_cuts_all_tokens_are_told(gpt2_tokenizer: Tokenizer) -> None:
    ids = tokens(gpt2_tokenizer, "b€")[:3]
    # the second one is held back behind the beginning of a stop string
    assert told(output(gpt2_tokenizer, "bx"), ids) == ids


def test_a_token_is_given_out_with_its_text(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, "bx")
    a, b, c = tokens(gpt2_tokenizer, "abc")
    found = [out.push(token) for token in (a, b, c)]
    assert found == [Verdict("a", (a,)), Verdict(""), Verdict("bc", (b, c))]


def test_what_another_phrase_held_back_stays(gpt2_tokenizer: Tokenizer) -> None:
    out = output(gpt2_tokenizer, banned_phrases=("abcz", "cd"))
    assert [out.push(token).rewind for token in tokens(gpt2_tokenizer, "abcd")] == [0, 0, 0, 2]
    assert rest(out) == "ab"


def test_the_first_of_several_phrases_goes_with_all_behind_it(gpt2_tokenizer: Tokenizer) -> None:
    (the,) = gpt2_tokenizer.encode(" the")
    out = output(gpt2_tokenizer, banned_phrases=("he", "x t"))
    (x,) = tokens(gpt2_tokenizer, "x")
    assert [out.push(token).rewind for token in (x, the)] == [0, 2]


def test_long_stop_strings_take_no_more_memory_than_they_have(gpt2_tokenizer: Tokenizer) -> None:
    stops = tuple(f"{number:03}" + "x" * 20_000 for number in range(20))
    tracemalloc.start()
    try:
        out = output(gpt2_tokenizer, *stops)
        assert push(out, tokens(gpt2_tokenizer, "a 019xx")) == ("a ", None)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_phrase_is_not_completed_over_text_that_is_sent(gpt2_tokenizer: Tokenizer) -> None:
    a, b = tokens(gpt2_tokenizer, "ab")
    out = output(gpt2_tokenizer, banned_phrases=("ab",))
    assert [(v.text, v.rewind) for v in map(out.push, [a, a, b])] == [("", 0), ("a", 0), ("", 2)]
    # The first "a" is sent, and now stands before the place of the next token again.
    assert out.push(b) == Verdict("", rewind=1)
    assert out.push(a).rewind == 0
    assert rest(out) == "a"
