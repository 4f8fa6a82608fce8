"""The items of a conversation as the messages that chats are made of. Pure; a part of `convert`."""

from typing import Any

from engine.errors import RequestError

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}

UNSEEN = ("input_image", "input_file", "input_audio")
"""Parts that only a model with other senses than text can use."""

Item = dict[str, Any]
Message = dict[str, Any]


def to_messages(said: str | list[Item], earlier: tuple[Message, ...] = ()) -> tuple[Message, ...]:
    """`earlier` and what is said after it, as messages in OpenAI's chat shape.

    Neighbouring calls of tools become one message with all of them. Items of reasoning are left out:
    templates drop the thoughts of earlier turns as well. Raises `RequestError` for items that the model
    cannot read, with their place.
    """
    if isinstance(said, str):
        return (*earlier, {"role": "user", "content": said})
    messages: list[Message] = []
    calls = [call for message in earlier for call in message.get("tool_calls", ())]
    names: dict[str, str] = {call["id"]: call["function"]["name"] for call in calls}
    for index, item in enumerate(said):
        place = f"input.{index}"
        match item.get("type", "message"):
            case "message":
                messages.append(_message(item, place))
            case "function_call":
                call = _call(item, place)
                names[call["id"]] = call["function"]["name"]
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(call)
            case "function_call_output":
                messages.append(_result(item, place, names))
            case "reasoning":
                pass
            case kind:
                raise RequestError(f"{place}: items of type {str(kind)[:40]!r} are not supported here")
    return (*earlier, *messages)


def _message(item: Item, place: str) -> Message:
    role = _string(item, "role", place)
    if role not in ROLES:
        raise RequestError(f"{place}.role: must be one of {', '.join(ROLES)}")
    return {"role": ROLES[role], "content": _text(item.get("content"), f"{place}.content")}


def _call(item: Item, place: str) -> dict[str, Any]:
    function = {"name": _string(item, "name", place), "arguments": _string(item, "arguments", place)}
    return {"id": _string(item, "call_id", place), "type": "function", "function": function}


def _result(item: Item, place: str, names: dict[str, str]) -> Message:
    called = _string(item, "call_id", place)
    message = {
        "role": "tool",
        "tool_call_id": called,
        "content": _text(item.get("output"), f"{place}.output"),
    }
    return message | ({"name": names[called]} if called in names else {})


def _text(content: Any, place: str) -> str:
    """The text of a string or of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{place}: must be text or a list of parts")
    texts = []
    for index, part in enumerate(content):
        where = f"{place}.{index}"
        if not isinstance(part, dict):
            raise RequestError(f"{where}: must be an object")
        match part.get("type"):
            case "input_text" | "output_text" | "text":
                texts.append(_string(part, "text", where))
            case "refusal":
                texts.append(_string(part, "refusal", where))
            case kind if kind in UNSEEN:
                raise RequestError(f"{where}: no model that sees or hears is loaded, so {kind} is refused")
            case kind:
                raise RequestError(f"{where}: parts of type {str(kind)[:40]!r} are not supported here")
    return "".join(texts)


def _string(item: Item, name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{place}.{name}: must be text")
    return value
