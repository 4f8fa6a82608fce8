"""Headers in front of a system prompt, which change with every request and are not for the model."""

from typing import Any

import pytest

from server.chat.call import ChatCall
from server.chat.client_header import without_headers
from tests.server.chat.planning import plan, text_of
from tests.server.chat.templates import system, user

HEADER = "x-anthropic-billing-header: cc_version=2.1; cch={};"


def left(text: str) -> Any:
    return without_headers((system(text), user("Hi")))


@pytest.mark.parametrize(
    "headers", [HEADER, HEADER + "\nX-Client-Session-Id: 7", "\n" + HEADER + "\n", "x-a-b: c\n\nx-d-e: f"]
)
def test_headers_go(headers: str) -> None:
    assert left(f"{headers}\nYou are terse.") == (system("You are terse."), user("Hi"))
    assert left(headers) == (user("Hi"),)


@pytest.mark.parametrize(
    "text", ["You are terse.\n" + HEADER, "x-axis: time", "Note: x", "x-ray", "-x-a-b: c", "", "max-a-b: c"]
)
def test_other_text_stays(text: str) -> None:
    assert left(text) == (system(text), user("Hi"))


def test_only_the_system_message_in_front_has_headers() -> None:
    for messages in (
        (),
        (user(HEADER),),
        (user("Hi"), system(HEADER)),
        ({"role": "system", "content": None},),
    ):
        assert without_headers(messages) == messages


def test_prompts_that_differ_in_the_header_are_the_same() -> None:
    first, second = (
        text_of(plan(ChatCall((system(f"{HEADER.format(nonce)}\nBe terse."), user("Hi")))))
        for nonce in ("11aa2", "77bb3")
    )
    assert first == second
    assert "Be terse." in first
