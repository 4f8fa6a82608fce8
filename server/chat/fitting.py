"""Leaves parts of a chat out when it has outgrown the context.

In this order, until the rest fits: the results of tools in earlier turns, oldest first; else whole turns,
oldest first; else the results of tools in the last turn, oldest first and never the newest. System messages
at the beginning stay, and so do the last user's message and what follows it: where these alone are too long,
the planner cuts the middle of the prompt.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from server.chat.history import RESULT, SYSTEM

Messages = tuple[Mapping[str, Any], ...]
Written = TypeVar("Written")

LEFT_OUT = "(left out: the conversation is longer than the context)"
"""What stands for a tool's result that is left out. Shorter results stay."""


async def fit(
    messages: Messages,
    write: Callable[[Messages], Awaitable[Written]],
    fits: Callable[[Written], Awaitable[bool]],
) -> Written:
    """What `write` makes of the messages, or of as many of them as fit.

    What is left of the chat begins with a user's message, as many templates need it. `write` is called a few
    times at most: the logarithm of the number of messages.
    """
    whole = await write(messages)
    starts = _starts(messages)
    if not starts or await fits(whole):
        return whole
    fitter = _Fitter(write, fits)
    last = starts[-1]
    earlier = _results(messages, range(last))
    if earlier and await fitter.fits(_without_results(messages, earlier)):
        return await fitter.first([_without_results(messages, earlier[: n + 1]) for n in range(len(earlier))])
    system = messages[: starts[0]]
    if len(starts) > 1 and await fitter.fits(system + messages[last:]):
        # The first of `starts` is the whole chat, which does not fit.
        return await fitter.first([system + messages[start:] for start in starts[1:]])
    rest = system + messages[last:]
    present = _results(rest, range(len(system), len(rest)))[:-1]
    return await fitter.first(
        [rest, *(_without_results(rest, present[: number + 1]) for number in range(len(present)))]
    )


class _Fitter(Generic[Written]):
    """Writes forms of a chat, each once at most."""

    def __init__(
        self,
        write: Callable[[Messages], Awaitable[Written]],
        fits: Callable[[Written], Awaitable[bool]],
    ) -> None:
        self._write = write
        self._fits = fits
        self._known: list[tuple[Messages, Written, bool]] = []

    async def fits(self, messages: Messages) -> bool:
        return (await self._tried(messages))[1]

    async def first(self, forms: Sequence[Messages]) -> Written:
        """The first of several forms, each shorter than the one before, that fits, or the last one."""
        low, high = 0, len(forms) - 1
        while low < high:
            middle = (low + high) // 2
            if await self.fits(forms[middle]):
                high = middle
            else:
                low = middle + 1
        return (await self._tried(forms[low]))[0]

    async def _tried(self, messages: Messages) -> tuple[Written, bool]:
        for known, written, fitting in self._known:
            if known == messages:
                return written, fitting
        written = await self._write(messages)
        fitting = await self._fits(written)
        self._known.append((messages, written, fitting))
        return written, fitting


def _starts(messages: Messages) -> list[int]:
    """Where a chat may begin after its system messages: at its beginning, and at each user's message."""
    first = next((at for at, message in enumerate(messages) if message.get("role") not in SYSTEM), None)
    if first is None:
        return []
    later = range(first + 1, len(messages))
    return [first, *(at for at in later if messages[at].get("role") == "user")]


def _results(messages: Messages, places: range) -> list[int]:
    """Where results of tools are that take more than what would stand for them."""
    return [
        at
        for at in places
        if messages[at].get("role") in RESULT and len(str(messages[at].get("content"))) > len(LEFT_OUT)
    ]


def _without_results(messages: Messages, places: Sequence[int]) -> Messages:
    left_out = set(places)
    return tuple(
        {**message, "content": LEFT_OUT} if at in left_out else message for at, message in enumerate(messages)
    )
