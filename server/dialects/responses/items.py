"""The items of a conversation as the messages that chats are made of. Pure; a part of `convert`."""

import base64
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

from engine.errors import RequestError
from server.wire.parts import kind_of, string_of, text_of_part, unknown_part
from server.wire.tools import INPUT, Offer, Tell

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}

SEALED = "nkat-thoughts:"
"""How `encrypted_content` begins that is this server's own: thoughts, which are shown in the open as well."""

LEFT_OUT = "items of this type are not known here, and the model does not see them"

Item = dict[str, Any]
Message = dict[str, Any]


def to_messages(
    said: str | list[Item], offer: Offer, tell: Tell, earlier: tuple[Message, ...] = ()
) -> tuple[Message, ...]:
    """`earlier` and what is said after it, as messages in OpenAI's chat shape.

    Neighbouring calls of tools become one message with all of them, and reasoning goes with the assistant's
    message that follows it. `offer` has the names under which the model knows the tools. Items of unknown
    types are left out, as later versions of clients invent them; `tell` hears of it. Raises `RequestError`
    for known items that cannot be read and for media, with their place.
    """
    if isinstance(said, str):
        return (*earlier, {"role": "user", "content": said})
    reader = _Reader(offer, tell, earlier, asked=_asked(said))
    for index, item in enumerate(said):
        reader.read(item, index)
    return (*earlier, *reader.messages)


def seal(thoughts: str) -> str:
    """Thoughts as `encrypted_content`, which clients send back as it is."""
    return SEALED + base64.b64encode(thoughts.encode("utf-8", "replace")).decode("ascii")


class _Reader:
    """`asked`: the index of the message that asks for the reply, -1 where there is none."""

    def __init__(self, offer: Offer, tell: Tell, earlier: tuple[Message, ...], asked: int) -> None:
        self.messages: list[Message] = []
        self._offer = offer
        self._tell = tell
        self._asked = asked
        self._thoughts: list[str] = []
        calls = [call for message in earlier for call in message.get("tool_calls", ())]
        self._names: dict[str, str] = {call["id"]: call["function"]["name"] for call in calls}

    def read(self, item: Item, index: int) -> None:
        place = f"input.{index}"
        kind = item.get("type", "message")
        match kind:
            case "message":
                self._message(item, place, asked=index == self._asked)
            case "function_call":
                self._call(item, string_of(item, "arguments", place), place)
            case "custom_tool_call":
                self._call(item, _as_arguments(string_of(item, "input", place)), place)
            case "function_call_output" | "custom_tool_call_output":
                self._result(item, place)
            case "reasoning":
                if thought := _thought(item):
                    self._thoughts.append(thought)
            case str() if kind.endswith("_call") and isinstance(item.get("call_id"), str):
                self._other_call(item, kind, place)
            case str() if kind.endswith("_output") and isinstance(item.get("call_id"), str):
                self._result({"output": _rest(item)} | item, place)
            case _:
                self._tell({f"an item of type {kind_of(item)}": LEFT_OUT})

    def _message(self, item: Item, place: str, *, asked: bool) -> None:
        role = string_of(item, "role", place)
        if role not in ROLES:
            raise RequestError(f"{place}.role: must be one of {', '.join(ROLES)}")
        text = self._text(item.get("content"), f"{place}.content", whole=asked)
        self._add({"role": ROLES[role], "content": text})

    def _call(self, item: Item, arguments: str, place: str) -> None:
        space = item.get("namespace")
        name = self._offer.find(string_of(item, "name", place), space if isinstance(space, str) else None)
        self._add_call(string_of(item, "call_id", place), name, arguments)

    def _other_call(self, item: Item, kind: str, place: str) -> None:
        """A call of a tool that runs elsewhere, such as `local_shell`, under the name of its type."""
        name = item.get("name")
        given: Any = next(
            (item[key] for key in ("arguments", "input", "action", "operation") if key in item), {}
        )
        arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        shown = name if isinstance(name, str) else kind.removesuffix("_call")
        self._add_call(string_of(item, "call_id", place), shown, arguments)

    def _add_call(self, call_id: str, name: str, arguments: str) -> None:
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self._names[call_id] = name
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self._add({"role": "assistant", "content": ""})
        elif self._thoughts:
            before = self.messages[-1].get("reasoning_content")
            self.messages[-1]["reasoning_content"] = _joined([before] if before else [], self._thoughts)
            self._thoughts.clear()
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _result(self, item: Item, place: str) -> None:
        called = string_of(item, "call_id", place)
        output = item.get("output")
        if isinstance(output, Mapping):
            output = [output] if "type" in output else json.dumps(output, ensure_ascii=False)
        text = self._text(output, f"{place}.output", whole=False)
        message = {"role": "tool", "tool_call_id": called, "content": text}
        self._add(message | ({"name": self._names[called]} if called in self._names else {}))

    def _add(self, message: Message) -> None:
        """One more message; thoughts go with the assistant's, and those that no message followed are lost."""
        if self._thoughts and message["role"] == "assistant":
            message["reasoning_content"] = _joined(self._thoughts)
        self._thoughts.clear()
        self.messages.append(message)

    def _text(self, content: Any, place: str, *, whole: bool) -> str:
        """The text of a string or of a list of parts; `whole`: all of them must be known."""
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise RequestError(f"{place}: must be text or a list of parts")
        texts = []
        for index, part in enumerate(content):
            text = text_of_part(part, where := f"{place}.{index}")
            if text is None and whole:
                raise unknown_part(part, where)
            if text is None:
                self._tell({f"a part of type {kind_of(part)}": LEFT_OUT})
                text = part["text"] if isinstance(part.get("text"), str) else ""
            texts.append(text)
        return "".join(texts)


def _asked(items: list[Item]) -> int:
    """The index of the user's message that ends the conversation, -1 where something else does."""
    for index in range(len(items) - 1, -1, -1):
        kind = items[index].get("type", "message")
        if kind == "message" or str(kind).endswith(("_call", "_output")):
            return index if kind == "message" and items[index].get("role") == "user" else -1
    return -1


def _joined(*thoughts: list[str]) -> str:
    return "\n".join(chain(*thoughts))


def _rest(item: Item) -> str:
    """What an item says beside its head, as JSON."""
    head = ("type", "id", "call_id", "status")
    return json.dumps({key: value for key, value in item.items() if key not in head}, ensure_ascii=False)


def _as_arguments(text: str) -> str:
    """The input of a custom tool as the arguments of the function that stands for it."""
    return json.dumps({INPUT: text}, ensure_ascii=False)


def _thought(item: Item) -> str:
    """The thoughts of an item of reasoning: as they were, sealed by this server, or their summary."""
    if said := _texts(item.get("content")):
        return said
    sealed = item.get("encrypted_content")
    if isinstance(sealed, str) and sealed.startswith(SEALED):
        try:
            return base64.b64decode(sealed.removeprefix(SEALED), validate=True).decode()
        except ValueError:
            pass
    return _texts(item.get("summary"))


def _texts(parts: Any) -> str:
    if not isinstance(parts, list):
        return parts if isinstance(parts, str) else ""
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))
