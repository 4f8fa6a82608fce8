"""Lets the oldest turns of a chat go when it has outgrown the context."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from server.chat.history import SYSTEM

Messages = tuple[Mapping[str, Any], ...]
Written = TypeVar("Written")


async def fit(
    messages: Messages,
    write: Callable[[Messages], Awaitable[Written]],
    fits: Callable[[Written], Awaitable[bool]],
) -> Written:
    """What `write` makes of the messages, or of as many of the newest as fit.

    System messages at the beginning stay, and so do the last user's message and all behind it: if those are
    too long, the engine cuts the prompt's oldest tokens. What is left of the chat begins with a user's
    turn, as many templates want it. A few calls of `write` at most: the logarithm of the number of turns.
    """
    whole = await write(messages)
    starts = _starts(messages)
    if len(starts) < 2 or await fits(whole):
        return whole
    system = messages[: starts[0]]
    # The first of `starts` is the whole chat, which does not fit; of the others the earliest that does.
    low, high = 1, len(starts) - 1
    found = await write(system + messages[starts[high] :])
    while low < high:
        middle = (low + high) // 2
        tried = await write(system + messages[starts[middle] :])
        if await fits(tried):
            high, found = middle, tried
        else:
            low = middle + 1
    return found


def _starts(messages: Messages) -> list[int]:
    """Where a chat may begin behind its system messages: at its beginning, and at each user's message."""
    first = next((at for at, message in enumerate(messages) if message.get("role") not in SYSTEM), None)
    if first is None:
        return []
    later = range(first + 1, len(messages))
    return [first, *(at for at in later if messages[at].get("role") == "user")]
