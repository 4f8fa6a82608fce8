"""When a chat has outgrown its context: the planner's arithmetic, at its edges."""

import asyncio
from dataclasses import replace

import pytest

from engine.types import GenerationRequest, TextPrompt
from server.chat.call import ChatCall
from server.chat.planner import ChatPlanner
from tests.server.chat import templates
from tests.server.chat.planning import BASE
from tests.server.chat.templates import Renderer, assistant, model, user

OLD, NEW = "An old question", "A new one"


class Bytes:
    """Each byte is a token, or each text has `tokens`."""

    def __init__(self, tokens: int | None = None) -> None:
        self._tokens = tokens

    async def size(self, text: str) -> int:
        return tokens_of(text) if self._tokens is None else self._tokens

    async def fits(self, text: str, tokens: int) -> bool:
        return await self.size(text) <= tokens


def tokens_of(text: str) -> int:
    return len(text.encode())


def prompt(
    context: int,
    *,
    old: str = OLD,
    memory: str = "",
    base: GenerationRequest = BASE,
    tokens: int | None = None,
) -> TextPrompt:
    """What is asked of a model of that context; each byte is a token, or each text has `tokens`."""

    planner = ChatPlanner(replace(model(templates.CHATML), context_length=context), sizes=Bytes(tokens))
    call = ChatCall((user(old), assistant("Yes."), user(NEW)), memory=memory)
    planned = asyncio.run(planner.plan(call, base, Renderer(templates.CHATML))).request.prompt
    assert isinstance(planned, TextPrompt)
    return planned


def whole(context: int, **fields: object) -> bool:
    """Whether the old turn is still there; the new one always is."""
    text = prompt(context, **fields).text  # type: ignore[arg-type]
    assert NEW in text
    return str(fields.get("old", OLD)) in text


SIZE = tokens_of(prompt(1 << 20).text)
"""Tokens of the whole chat."""


def test_prompt_and_reply_fill_the_context_to_the_last_token() -> None:
    assert whole(SIZE + BASE.max_tokens)
    assert not whole(SIZE + BASE.max_tokens - 1)


def test_memory_takes_its_part() -> None:
    assert whole(SIZE + BASE.max_tokens + 7, memory="1234567")
    assert not whole(SIZE + BASE.max_tokens + 6, memory="1234567")


def test_a_request_may_lower_the_context_and_not_raise_it() -> None:
    enough = SIZE + BASE.max_tokens
    assert whole(1 << 20, base=replace(BASE, context_length=enough))
    assert not whole(1 << 20, base=replace(BASE, context_length=enough - 1))
    assert not whole(enough - 1, base=replace(BASE, context_length=1 << 20))


@pytest.mark.parametrize("length", [SIZE, 1 << 30])
def test_a_long_reply_leaves_a_little_to_the_prompt(length: int) -> None:
    base = replace(BASE, max_tokens=length)
    assert whole(SIZE, base=base, tokens=16)
    assert not whole(SIZE, base=base, tokens=17)


def test_a_reply_without_an_end_is_no_room() -> None:
    assert whole(SIZE, base=replace(BASE, max_tokens=-1))
    assert not whole(SIZE - 1, base=replace(BASE, max_tokens=-1))


def test_letters_are_no_measure_of_tokens() -> None:
    """A text of fewer bytes than there is room needs no count; of fewer letters it does."""
    old = "\N{HANGUL SYLLABLE GA}" * 100
    letters = len(prompt(1 << 20, old=old).text)
    assert not whole(letters + 1 + BASE.max_tokens, old=old)
    assert whole(letters + 200 + BASE.max_tokens, old=old)


@pytest.mark.parametrize("system", ["You are brief. ", "You are brief. " * 40])
def test_the_beginning_of_the_system_prompt_stays(system: str) -> None:
    context, question = 400, "Why? " * 200
    planner = ChatPlanner(replace(model(templates.CHATML), context_length=context), sizes=Bytes())
    call = ChatCall(({"role": "system", "content": system}, user(question)))
    request = asyncio.run(planner.plan(call, BASE, Renderer(templates.CHATML))).request
    prompt = request.prompt
    assert isinstance(prompt, TextPrompt)
    room = context - BASE.max_tokens
    assert prompt.memory.startswith("<|im_start|>system\nYou are brief. ")
    assert tokens_of(prompt.memory) <= room // 2
    if len(system) < room // 4:
        assert prompt.memory.endswith("<|im_start|>user\n"), "the whole of it"
    else:
        assert tokens_of(prompt.memory) == room // 2
    assert prompt.text.endswith("Why? <|im_end|>\n<|im_start|>assistant\n")


def test_what_was_sent_is_counted_where_turns_are_left_out() -> None:
    for context in (SIZE + BASE.max_tokens, SIZE + BASE.max_tokens - 1):
        planner = ChatPlanner(replace(model(templates.CHATML), context_length=context), sizes=Bytes())
        call = ChatCall((user(OLD), assistant("Yes."), user(NEW)))
        request = asyncio.run(planner.plan(call, BASE, Renderer(templates.CHATML))).request
        assert request.sent_tokens == (0 if context == SIZE + BASE.max_tokens else SIZE)


def test_what_may_not_be_cut_stays_whole() -> None:
    assert whole(40, base=replace(BASE, whole_only=True))
