import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.prompt import PromptEncoder
from engine.tokenizer import Tokenizer
from engine.types import (
    UNTIL_END,
    ChatPrompt,
    GenerationRequest,
    Prompt,
    SamplingParams,
    TextPrompt,
    TokenPrompt,
)

BOS, EOS = 1, 2


def prepare(
    tokenizer: Tokenizer, prompt: Prompt, max_tokens: int = 8, *, context: int = 64, **others: Any
) -> GenerationRequest:
    request = GenerationRequest("x", prompt, max_tokens, **others)
    return PromptEncoder(tokenizer, context).prepare(request)


def ids(request: GenerationRequest) -> list[int]:
    assert isinstance(request.prompt, TokenPrompt)
    return list(request.prompt.ids)


def test_bos_is_for_the_file_to_say(gpt2_tokenizer: Tokenizer, llama_tokenizer: Tokenizer) -> None:
    assert BOS not in ids(prepare(gpt2_tokenizer, TextPrompt("hello")))
    assert ids(prepare(llama_tokenizer, TextPrompt("hello")))[0] == BOS
    assert ids(prepare(llama_tokenizer, TextPrompt("<s>hello"))).count(BOS) == 1


def test_memory_goes_in_front_with_one_bos(llama_tokenizer: Tokenizer) -> None:
    found = ids(prepare(llama_tokenizer, TextPrompt("world", memory="hello")))
    memory = llama_tokenizer.encode("hello")
    assert found[: len(memory)] == memory
    assert found.count(BOS) == 1
    assert found[len(memory) :] == llama_tokenizer.encode("world", add_bos=False)


@pytest.mark.parametrize("tokenizer", ["gpt2_tokenizer", "llama_tokenizer"])
def test_an_overlong_prompt_loses_its_front_but_bos(tokenizer: str, request: pytest.FixtureRequest) -> None:
    its: Tokenizer = request.getfixturevalue(tokenizer)
    text = "".join(chr(ord("!") + n % 90) for n in range(200))
    whole = its.encode(text)
    found = ids(prepare(its, TextPrompt(text), 10, context=64))
    assert len(found) == 54
    if its.add_bos:
        assert found == [BOS, *whole[-53:]]
    else:
        assert found == whole[-54:]


def test_memory_survives_an_overlong_prompt(llama_tokenizer: Tokenizer) -> None:
    memory = llama_tokenizer.encode("remember")
    text = "0123456789" * 20
    found = ids(prepare(llama_tokenizer, TextPrompt(text, memory="remember"), 10, context=64))
    rest = 54 - len(memory)
    assert found == memory + llama_tokenizer.encode(text, add_bos=False)[-rest:]


def test_overlong_memory_keeps_its_newest_part_and_four_tokens_of_room(llama_tokenizer: Tokenizer) -> None:
    memory = llama_tokenizer.encode("0123456789" * 20)
    text = "abcdefgh"
    prompt = TextPrompt(text, memory="0123456789" * 20)
    found = ids(prepare(llama_tokenizer, prompt, 10, context=64))
    assert found == [BOS, *memory[-49:], *llama_tokenizer.encode(text, add_bos=False)[-4:]]


@pytest.mark.parametrize("more", [0, 1])
def test_what_fits_to_the_last_token_stays_whole(llama_tokenizer: Tokenizer, more: int) -> None:
    memory = llama_tokenizer.encode("0" * 49)
    assert len(memory) == 51
    prompt = TextPrompt("abc" + "d" * more, memory="0" * 49)
    text = llama_tokenizer.encode(prompt.text, add_bos=False)
    assert len(text) == 3 + more
    whole = memory + text
    found = ids(prepare(llama_tokenizer, prompt, 10, context=64))
    assert found == (whole if not more else [BOS, *memory[-49:], *text])


def test_a_bos_that_the_file_does_not_ask_for_goes_like_other_tokens(
    gpt2_tokenizer: Tokenizer, llama_tokenizer: Tokenizer
) -> None:
    """A template may begin each message with that token."""
    given = TokenPrompt((BOS, *range(3, 103)))
    assert ids(prepare(gpt2_tokenizer, given, 8, context=64)) == list(range(47, 103))
    assert ids(prepare(llama_tokenizer, given, 8, context=64)) == [BOS, *range(48, 103)]


@pytest.mark.parametrize(
    ("wanted", "context", "granted"),
    [(8, 64, 8), (1000, 64, 48), (48, 64, 48), (49, 64, 48), (0, 64, 0), (-3, 64, -3), (9, 5, 4), (9, 2, 1)],
)
def test_max_tokens_leaves_the_prompt_a_little(
    gpt2_tokenizer: Tokenizer, wanted: int, context: int, granted: int
) -> None:
    assert prepare(gpt2_tokenizer, TextPrompt("x"), wanted, context=context).max_tokens == granted


@pytest.mark.parametrize(("asked", "found"), [(None, 56), (1000, 56), (40, 32), (5, 1), (1, 1), (-7, 1)])
def test_a_request_may_lower_the_context_only(
    gpt2_tokenizer: Tokenizer, asked: int | None, found: int
) -> None:
    prepared = prepare(gpt2_tokenizer, TokenPrompt((7,) * 100), 8, context=64, context_length=asked)
    assert len(ids(prepared)) == found


def test_an_empty_prompt_gets_a_first_token(gpt2_tokenizer: Tokenizer, llama_tokenizer: Tokenizer) -> None:
    for tokenizer in (gpt2_tokenizer, llama_tokenizer):
        assert ids(prepare(tokenizer, TextPrompt(""))) == [BOS]
        assert ids(prepare(tokenizer, TokenPrompt(()))) == [BOS]


def test_token_prompts_are_used_as_they_are(llama_tokenizer: Tokenizer) -> None:
    assert ids(prepare(llama_tokenizer, TokenPrompt((9, 8, 7)))) == [9, 8, 7]


@pytest.mark.parametrize("bad", [-1, 10**9, 2**70])
def test_unknown_token_ids_are_the_clients_fault(gpt2_tokenizer: Tokenizer, bad: int) -> None:
    with pytest.raises(RequestError, match="token ids must lie between 0 and"):
        prepare(gpt2_tokenizer, TokenPrompt((1, bad)))
    with pytest.raises(RequestError):
        prepare(gpt2_tokenizer, TokenPrompt((gpt2_tokenizer.vocab_size,)))


def test_biases_of_unknown_ids_are_dropped(gpt2_tokenizer: Tokenizer) -> None:
    last = gpt2_tokenizer.vocab_size - 1
    given = SamplingParams(logit_bias=((-1, 1.0), (0, 2.0), (last, 3.0), (last + 1, 4.0)))
    prepared = prepare(gpt2_tokenizer, TextPrompt("x"), sampling=given)
    assert prepared.sampling.logit_bias == ((0, 2.0), (last, 3.0))


def test_texts_are_biased_token_by_token(gpt2_tokenizer: Tokenizer) -> None:
    first, second = gpt2_tokenizer.encode("hello", add_bos=False), gpt2_tokenizer.encode("<", add_bos=False)
    given = SamplingParams(
        logit_bias=((first[0], 1.0), (7, 5.0)), text_bias=(("hello", 2.0), ("<", -math.inf), ("", 3.0))
    )
    prepared = prepare(gpt2_tokenizer, TextPrompt("x"), sampling=given).sampling
    expected = {first[0]: 1.0, 7: 5.0} | dict.fromkeys(first, 2.0) | dict.fromkeys(second, -math.inf)
    assert dict(prepared.logit_bias) == expected
    assert prepared.text_bias == ()


@pytest.mark.parametrize(("length", "kept"), [(1, 1), (40, 40), (48, 48), (60, 48), (500, 48)])
def test_a_reply_to_the_end_leaves_the_prompt_whole(
    gpt2_tokenizer: Tokenizer, length: int, kept: int
) -> None:
    prepared = prepare(gpt2_tokenizer, TokenPrompt((3,) * length), UNTIL_END, context=64)
    assert (len(ids(prepared)), prepared.max_tokens) == (kept, 64 - kept)


@pytest.mark.parametrize(
    ("length", "asked", "kept", "left"),
    [
        (1, 8, 1, 8),
        (40, 60, 40, 24),
        (40, UNTIL_END, 40, 24),
        (60, 60, 48, 16),
        (60, 8, 56, 8),
        (60, 0, 60, 0),
    ],
)
def test_a_prompt_that_goes_first_leaves_a_quarter_of_the_context(
    gpt2_tokenizer: Tokenizer, length: int, asked: int, kept: int, left: int
) -> None:
    prepared = prepare(gpt2_tokenizer, TokenPrompt((3,) * length), asked, context=64, prompt_first=True)
    assert (len(ids(prepared)), prepared.max_tokens) == (kept, left)


def test_chats_go_through_the_template(gpt2_tokenizer: Tokenizer) -> None:
    chat = ChatPrompt(({"role": "user", "content": "hello"},))
    encoder = PromptEncoder(gpt2_tokenizer, 64)
    text = encoder.render(chat)
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert ids(prepare(gpt2_tokenizer, chat)) == gpt2_tokenizer.encode(text)


prompts = st.one_of(
    st.builds(TextPrompt, st.text("abc <s>é", max_size=60), st.text("xyz é", max_size=60)),
    st.builds(TokenPrompt, st.lists(st.integers(0, 250), max_size=60).map(tuple)),
    st.builds(
        ChatPrompt,
        st.lists(st.text("ab ", max_size=20), max_size=3).map(
            lambda texts: tuple({"role": "user", "content": text} for text in texts)
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    prompts,
    st.integers(-5, 80) | st.just(UNTIL_END),
    st.sampled_from([1, 2, 3, 4, 5, 6, 17, 20, 21, 40]),
    st.none() | st.integers(-2, 50),
    st.booleans(),
    st.booleans(),
)
def test_prompt_and_reply_always_fit_the_context(
    gpt2_tokenizer: Tokenizer,
    llama_tokenizer: Tokenizer,
    prompt: Prompt,
    max_tokens: int,
    context: int,
    asked: int | None,
    with_bos: bool,
    prompt_first: bool,
) -> None:
    tokenizer = llama_tokenizer if with_bos else gpt2_tokenizer
    prepared = prepare(
        tokenizer, prompt, max_tokens, context=context, context_length=asked, prompt_first=prompt_first
    )
    limit = context if asked is None else min(context, max(2, asked))
    assert 1 <= len(ids(prepared)) <= limit - max(0, prepared.max_tokens)
    assert prepared.max_tokens <= max_tokens
    assert (prepared.max_tokens > 0) == (max_tokens > 0 and limit > 1)
