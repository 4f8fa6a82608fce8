"""Finds the tags of a chat template by looking at what it makes of known messages.

Knows no template language: whoever calls renders. The messages carry marks instead of content, and the
text between two marks is what the template puts there: the end of one turn and the start of the next.
Renderings that stop after a turn show where the one ends and the other begins.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import NkatError
from server.chat.adapters import Adapter, shipped_adapter

Render = Callable[[Sequence[Mapping[str, Any]], bool], str]
"""Messages, and whether a reply is opened after them -> the prompt. May raise `NkatError`."""

_SYSTEM, _USER, _REPLY, _NEXT, _RESULT = (
    f"Probe{name}Content" for name in ("System", "User", "Assistant", "Second", "Tool")
)
_CHAT: Sequence[Mapping[str, Any]] = (
    {"role": "system", "content": _SYSTEM},
    {"role": "user", "content": _USER},
    {"role": "assistant", "content": _REPLY},
    {"role": "user", "content": _NEXT},
)


class _UnclearError(Exception):
    """The template shows no tags that an adapter could say."""


def guess_adapter(render: Render | None, chatml: bool) -> Adapter:
    """The tags of a model's template, if `render` is given and shows them.

    Else ChatML's where `chatml` says that the vocabulary has `<|im_start|>` and `<|im_end|>`, else
    Alpaca's: the same choice as the engine makes for files without a template.
    """
    derived = None if render is None else derive_adapter(render)
    if derived is not None:
        return derived
    return shipped_adapter("chatml" if chatml else "alpaca")


def derive_adapter(render: Render) -> Adapter | None:
    """The adapter that writes what the template writes; None where turns show no common tags.

    A template that has no place for a system's text gets the user's tags for it. Some things a template
    does no adapter can say: a system's text of its own, or another form of the first turn.
    """
    try:
        return _derive(render)
    except (NkatError, _UnclearError):
        return None


def _derive(render: Render) -> Adapter:
    before, system_to_user, user_to_reply, reply_to_user, user_end = _gaps(
        render(_CHAT, False), (_SYSTEM, _USER, _REPLY, _NEXT)
    )
    assistant_end = _gaps(render(_CHAT[:3], False), (_REPLY,))[1]
    user_start = _without_start(reply_to_user, assistant_end)
    assistant_start = _without_start(user_to_reply, user_end)
    reply_start = _without_start(_gaps(render(_CHAT, True), (_NEXT,))[1], user_end)

    chat_start = _gaps(render(_CHAT[1:2], False), (_USER,))[0].removesuffix(user_start)
    if not before.startswith(chat_start):  # a system's text of the template's own
        chat_start = ""
    if system_to_user.endswith(user_start):
        system_start, system_end = before.removeprefix(chat_start), system_to_user.removesuffix(user_start)
    else:
        system_start, system_end = user_start, user_end
    tools_start, tools_end = _tool_tags(render, assistant_end, user_start) or (user_start, user_end)
    return Adapter(
        chat_start=chat_start,
        system_start=system_start,
        system_end=system_end,
        user_start=user_start,
        user_end=user_end,
        assistant_start=assistant_start,
        assistant_end=assistant_end,
        assistant_gen=None if reply_start == assistant_start else reply_start,
        tools_start=tools_start,
        tools_end=tools_end,
    )


def _tool_tags(render: Render, assistant_end: str, user_start: str) -> tuple[str, str] | None:
    """The tags of what a tool gave back, where the template takes such messages at all."""
    result = {"role": "tool", "content": _RESULT, "tool_call_id": "0", "name": "probe"}
    try:
        _, start, end, _ = _gaps(render((*_CHAT[:3], result, _CHAT[3]), False), (_REPLY, _RESULT, _NEXT))
        start = _without_start(start, assistant_end)
    except (NkatError, _UnclearError):
        return None
    return (start, end.removesuffix(user_start)) if end.endswith(user_start) else None


def _gaps(text: str, marks: Sequence[str]) -> list[str]:
    """The text before the first mark, between the marks, and after the last one."""
    gaps = []
    for mark in marks:
        gap, found, text = text.partition(mark)
        if not found:
            raise _UnclearError
        gaps.append(gap)
    return [*gaps, text]


def _without_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise _UnclearError
    return text.removeprefix(start)
