import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.fitting import LEFT_OUT, fit

roles = st.sampled_from(["system", "user", "assistant", "tool"])


def chat(*roles: str) -> tuple[dict[str, Any], ...]:
    return tuple({"role": role, "content": str(number)} for number, role in enumerate(roles))


def fitted(messages: tuple[Any, ...], room: int) -> tuple[list[Any], int]:
    """What is left of the chat where `room` messages fit, and how often it was written."""
    writings = 0

    async def write(left: tuple[Any, ...]) -> list[Any]:
        nonlocal writings
        writings += 1
        return list(left)

    async def fits(left: list[Any]) -> bool:
        return len(left) <= room

    return asyncio.run(fit(messages, write, fits)), writings


def contents(messages: list[Any]) -> str:
    return "".join(message["content"] for message in messages)


@pytest.mark.parametrize(
    ("roles", "room", "left"),
    [
        ("suauau", 9, "012345"),
        ("suauau", 5, "0345"),
        ("suauau", 4, "0345"),
        ("suauau", 3, "05"),
        ("suauau", 0, "05"),
        ("uauau", 2, "4"),
        ("ssauau", 5, "01345"),
        ("sua", 1, "012"),
        ("s", 0, "0"),
        ("", 0, ""),
        ("suatau", 3, "05"),
        ("usau", 3, "3"),
    ],
)
def test_the_oldest_turns_go(roles: str, room: int, left: str) -> None:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    assert contents(fitted(chat(*(names[role] for role in roles)), room)[0]) == left


@given(st.lists(roles, max_size=40), st.integers(0, 45))
def test_as_much_as_fits_stays(given_roles: list[str], room: int) -> None:
    messages = chat(*given_roles)
    left, writings = fitted(messages, room)
    kept = [message for message in messages if message in left]
    assert left == kept
    assert messages[-1:] == tuple(left[-1:])
    assert writings <= 8
    if len(messages) <= room:
        assert left == list(messages)
    system = next((at for at, role in enumerate(given_roles) if role != "system"), len(messages))
    assert left[:system] == list(messages[:system])
    starts = [at for at in range(system + 1, len(messages)) if given_roles[at] == "user"]
    if left != list(messages):
        assert left[system]["role"] == "user"
        # one turn more would not have fitted
        first = int(left[system]["content"])
        longer = [at for at in starts if at < first]
        assert not longer or system + len(messages) - longer[-1] > room


LONG = 1000
"""Letters of a tool's result; all else has one."""


def agent(turns: int, results: int) -> tuple[dict[str, Any], ...]:
    """System, then turns of a user's message, calls and their results."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s"}]
    for turn in range(turns):
        messages.append({"role": "user", "content": str(turn)})
        for _ in range(results):
            messages.append({"role": "assistant", "content": "c"})
            messages.append({"role": "tool", "content": chr(97 + turn) * LONG})
    return tuple(messages)


def fitted_letters(messages: tuple[Any, ...], room: int) -> str:
    """The chat where so many letters fit; a result by its first letter, in capitals where it is left out."""

    async def write(left: tuple[Any, ...]) -> tuple[Any, ...]:
        return left

    async def fits(left: tuple[Any, ...]) -> bool:
        return len(contents(list(left))) <= room

    left = asyncio.run(fit(messages, write, fits))
    return "".join("-" if message["content"] == LEFT_OUT else message["content"][0] for message in left)


@pytest.mark.parametrize(
    ("room", "left"),
    [
        (6 * LONG + 100, "s0caca1cbcb2cccc"),
        (5 * LONG + 200, "s0c-ca1cbcb2cccc"),
        (4 * LONG + 300, "s0c-c-1cbcb2cccc"),
        (2 * LONG + 400, "s0c-c-1c-c-2cccc"),
        (2 * LONG + 100, "s2cccc"),
        (LONG + 100, "s2c-cc"),
        (LONG, "s2c-cc"),
        (0, "s2c-cc"),
    ],
)
def test_results_of_tools_go_before_turns_and_the_newest_never(room: int, left: str) -> None:
    assert fitted_letters(agent(turns=3, results=2), room) == left


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 25 * LONG))
def test_nothing_goes_that_might_stay(turns: int, results: int, room: int) -> None:
    messages = agent(turns, results)
    left = fitted_letters(messages, room)
    assert left[0] == "s"
    assert left[-1] != "-"
    if turns * results * LONG + 100 < room:
        assert "-" not in left
