"""Whether a tool must be called, and which: the field `tool_choice` in the shapes of all dialects."""

from collections.abc import Mapping
from typing import Any

from engine.errors import RequestError
from server.chat.call import ToolChoice, ToolMode
from server.wire.parts import KIND_SHOWN
from server.wire.tools import Offer, Tell, named, named_in

MODES: Mapping[str, ToolMode] = {
    "auto": ToolMode.AUTO,
    "none": ToolMode.NONE,
    "required": ToolMode.REQUIRED,
    "any": ToolMode.REQUIRED,
}

NAMED = ("function", "custom", "tool")
"""Types of choices that name one tool."""

IN_VAIN = "the tool does not run here; the model chooses"


def read_choice(value: Any, offer: Offer, tell: Tell) -> ToolChoice:
    """Whether a tool of the offer must be called, and which, under the model's names.

    `value` is a word (`auto`, `none`, `required`, `any`), an object with such a word as its type, an object
    that names a tool, flat or nested, one that lists the allowed tools, or None for `auto`. A choice of tools
    that were skipped leaves the choice to the model, and `tell` hears of it. Raises `RequestError` for what
    is none of these.
    """
    choice = _chosen(value, offer)
    if choice is not None and choice.name in offer.skipped and choice.name not in offer.declared:
        choice = None
    if choice is None:
        tell({f"tool_choice {_shown(value)}": IN_VAIN})
        return ToolChoice()
    if choice.mode is ToolMode.REQUIRED and offer.any_skipped and not _any_callable(choice, offer):
        tell({"tool_choice without a tool that runs here": IN_VAIN})
        return ToolChoice()
    return choice


def _any_callable(choice: ToolChoice, offer: Offer) -> bool:
    return choice.name is not None or any(map(choice.admits, offer.tools))


def _chosen(value: Any, offer: Offer) -> ToolChoice | None:
    """The choice as it was made; None where it is of a type that is not known here."""
    if value is None:
        return ToolChoice()
    if isinstance(value, str) and value in MODES:
        return ToolChoice(MODES[value])
    if not isinstance(value, Mapping):
        raise _unreadable()
    kind = value.get("type", "function")
    if not isinstance(kind, str):
        raise _unreadable()
    if kind in MODES:
        return ToolChoice(MODES[kind])
    if kind == "allowed_tools":
        return _allowed(value, offer)
    found = named(value)
    if found is not None and (kind in NAMED or offer.find(*found) in offer.declared):
        return ToolChoice(ToolMode.REQUIRED, offer.find(*found))
    if found is None and kind in NAMED:
        raise RequestError("tool_choice.name: must name a tool")
    return None


def _allowed(value: Mapping[str, Any], offer: Offer) -> ToolChoice:
    inner = value.get("allowed_tools")
    body = inner if isinstance(inner, Mapping) else value
    listed, mode = body.get("tools"), body.get("mode", "auto")
    if not isinstance(listed, list) or mode not in MODES:
        raise RequestError('tool_choice: allowed_tools has "tools", a list, and a mode, auto or required')
    return ToolChoice(MODES[mode], allowed=frozenset(offer.find(*found) for found in named_in(listed)))


def _shown(value: Mapping[str, Any]) -> str:
    return repr(str(value.get("type"))[:KIND_SHOWN])


def _unreadable() -> RequestError:
    return RequestError(
        'tool_choice must be "none", "auto", "required", "any", an object that names a tool, '
        'or {"type": "allowed_tools", "mode": ..., "tools": [...]}'
    )
