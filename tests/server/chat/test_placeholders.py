import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.adapters import Adapter, shipped_adapter
from server.chat.placeholders import (
    INPUT,
    INPUT_END,
    OUTPUT,
    OUTPUT_END,
    SYSTEM,
    SYSTEM_END,
    fill_placeholders,
)

ADAPTER = Adapter("<chat>", "<S>", "</S>", "<U>", "</U>", "<A>", "</A>", "<A!>")
PLAIN = Adapter("", "<S>", "</S>", "<U>", "</U>", "<A>", "</A>")


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("no placeholder", "no placeholder"),
        (f"{INPUT}Hi{OUTPUT}", "<U>Hi</U><A!>"),
        (f"{INPUT}Hi{OUTPUT}Yes?{INPUT}Go{OUTPUT}", "<U>Hi</U><A>Yes?</A><U>Go</U><A!>"),
        (f"{SYSTEM}Be terse.{INPUT}Hi", "<S>Be terse.<U>Hi"),
        (f"{SYSTEM}Be terse.{SYSTEM_END}{INPUT}Hi", "<S>Be terse.</S><U>Hi"),
        (f"{OUTPUT}Hello{INPUT}Hi{OUTPUT}So", "</U><A>Hello<U>Hi</U><A!>So"),
        (f"{INPUT}Hi{INPUT_END}{OUTPUT}Yes?{OUTPUT_END}{INPUT}Go", "<U>Hi</U><A!>Yes?</A><U>Go"),
        (f"{INPUT}Hi{INPUT_END}{OUTPUT}Yes?{OUTPUT_END}{OUTPUT}", "<U>Hi</U><A>Yes?</A><A!>"),
        ("{{[input]}} {[INPUT]}", "{{[input]}} {[INPUT]}"),
    ],
)
def test_prompts(prompt: str, filled: str) -> None:
    assert fill_placeholders(ADAPTER, prompt).prompt == filled
    without_gen = filled.replace("<A!>", "<A>")
    assert fill_placeholders(PLAIN, prompt).prompt == without_gen


def test_memory_and_prompt_are_one_text() -> None:
    filled = fill_placeholders(ADAPTER, f"{INPUT}Hi{OUTPUT}", f"{INPUT}Rules{OUTPUT}Yes.")
    assert (filled.memory, filled.prompt) == ("<U>Rules</U><A>Yes.", "</A><U>Hi</U><A!>")
    # an end anywhere means that the client closes its turns itself
    filled = fill_placeholders(ADAPTER, f"{INPUT}Hi{OUTPUT}", f"{INPUT}Rules{INPUT_END}")
    assert (filled.memory, filled.prompt) == ("<U>Rules</U>", "<U>Hi<A!>")
    assert fill_placeholders(ADAPTER, "on", f"{OUTPUT}Go").memory == "</U><A!>Go"


def test_stop_strings() -> None:
    stops = [INPUT, OUTPUT, "User:", f"a{INPUT}", "User:", SYSTEM_END, ""]
    assert fill_placeholders(Adapter(), "", stop=stops).stop == (
        "### Instruction:",
        "### Response:",
        "User:",
        f"a{INPUT}",
    )
    assert fill_placeholders(shipped_adapter("harmony"), "", stop=[OUTPUT, INPUT]).stop == (
        "<|start|>user<|message|>",
    )


def test_tags_that_look_like_placeholders_stay() -> None:
    assert fill_placeholders(Adapter(user_start=OUTPUT, user_end=""), f"{INPUT}Hi").prompt == f"{OUTPUT}Hi"


@given(st.lists(st.sampled_from([INPUT, OUTPUT, "Hi", " "])).map("".join))
def test_a_chat_is_written_as_the_adapter_writes_it(text: str) -> None:
    """Turns in order, filled, are the prompt of the same messages."""
    messages: list[dict[str, str]] = []
    prompt = ""
    for index, part in enumerate(text.split(INPUT)):
        role, tag = ("user", INPUT) if index % 2 == 0 else ("assistant", OUTPUT)
        content = part.replace(OUTPUT, "")
        messages.append({"role": role, "content": content})
        prompt += tag + content
    if messages[-1]["role"] == "user":
        prompt += OUTPUT
        assert fill_placeholders(ADAPTER, prompt).prompt == ADAPTER.prompt(messages).removeprefix("<chat>")
