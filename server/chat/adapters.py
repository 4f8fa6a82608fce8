"""Adapters: tags round the turns of a chat, KoboldCpp's way from messages to a prompt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from engine.errors import ConfigError, RequestError
from server.chat.adapter_tags import SHIPPED
from server.chat.history import RESULT, SYSTEM, calls_of, role_of, text_of
from server.chat.message import ToolCall

AUTO_GUESS = "autoguess"
"""The name that asks for the model's own format, in lower case."""
MAX_TAG = 4096
"""Characters of one tag; the longest in use have some 60."""
MAX_FILE = 1 << 20
"""Bytes of an adapter's file."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What stands before and after each turn; the defaults are Alpaca's.

    `chat_start` stands once, before everything. `assistant_gen` opens the reply that is asked for; None
    means `assistant_start`, which opens the earlier ones.
    """

    chat_start: str = ""
    system_start: str = "\n### Instruction:\n"
    system_end: str = ""
    user_start: str = "\n### Instruction:\n"
    user_end: str = ""
    assistant_start: str = "\n### Response:\n"
    assistant_end: str = ""
    assistant_gen: str | None = None
    tools_start: str = ""
    tools_end: str = ""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The adapter of a JSON object: missing and null tags are Alpaca's, other keys are ignored.

        Raises `RequestError` for a tag that is no text or longer than `MAX_TAG` characters.
        """
        tags: dict[str, str] = {}
        for field in fields(cls):
            value = values.get(field.name)
            if value is None:
                continue
            if not isinstance(value, str) or len(value) > MAX_TAG:
                raise RequestError(f"the adapter's {field.name} must be text of at most {MAX_TAG} characters")
            tags[field.name] = value
        return cls(**tags)

    @property
    def reply_start(self) -> str:
        """The tag that the reply follows."""
        return self.assistant_start if self.assistant_gen is None else self.assistant_gen

    @property
    def assistant_stop(self) -> str:
        """`assistant_start` as a stop string: without blanks at its ends.

        Empty where the reply itself goes on from `assistant_gen` through it, as Harmony's replies do.
        """
        opened = self.reply_start
        goes_on = bool(opened) and opened != self.assistant_start and self.assistant_start.startswith(opened)
        return "" if goes_on else self.assistant_start.strip()

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends a reply: the tags that open a turn of the user or the assistant."""
        tags = (self.user_start.strip(), self.assistant_stop)
        return tuple(dict.fromkeys(tag for tag in tags if tag))

    def prompt(self, messages: Sequence[Mapping[str, Any]], continue_last: bool = True) -> str:
        """The prompt for the next reply, or with `continue_last` for more of a last one.

        Any order of roles is taken. An unknown role adds its content without tags, and a message whose
        content is null adds nothing, unless it calls tools. Raises `RequestError` for messages that are
        not of OpenAI's shape.
        """
        written = [self.chat_start]
        last = len(messages) - 1
        for index, message in enumerate(messages):
            role = role_of(message, index)
            text = self._text(message, role, index)
            if text is None:
                continue
            start, end = self._tags(role)
            if continue_last and index == last and role == "assistant":
                return "".join((*written, start, text))
            written += (start, text, end)
        return "".join((*written, self.reply_start))

    def _tags(self, role: str) -> tuple[str, str]:
        if role == "user":
            return self.user_start, self.user_end
        if role == "assistant":
            return self.assistant_start, self.assistant_end
        if role in SYSTEM:
            return self.system_start, self.system_end
        if role in RESULT:
            return self.tools_start, self.tools_end
        return "", ""

    @staticmethod
    def _text(message: Mapping[str, Any], role: str, index: int) -> str | None:
        text = text_of(message, index)
        if role in RESULT and text is not None:
            return f"\nReceived results of function call {message.get('tool_call_id') or ''}:\n{text}"
        if role == "assistant" and not text and (calls := calls_of(message, index)):
            return "".join(map(_report, calls))
        return text


def _report(call: ToolCall) -> str:
    return f"\n(Called function {call.name} with {call.arguments} as {call.id or 'a call'})\n"


def load_adapter(value: str) -> Adapter | None:
    """The adapter that a setting names; None for `AutoGuess`, the format of the model's own template.

    `value` is a name of `shipped_names`, in whatever case, with or without `.json`, or a JSON object, or
    the path of a file with one. Raises `ConfigError` in one line.
    """
    text = value.strip()
    name = text.lower().removesuffix(".json")
    if name == AUTO_GUESS:
        return None
    if name in SHIPPED:
        return shipped_adapter(name)
    if text.startswith("{"):
        return _parse(text, "the chat adapter")
    path = Path(text).expanduser()
    try:
        if not path.is_file():
            raise ConfigError(
                f"no chat adapter {text[:100]!r}: give a JSON file or one of AutoGuess, "
                + ", ".join(sorted(SHIPPED))
            )
        if path.stat().st_size > MAX_FILE:
            raise ConfigError(f"the chat adapter {path} is larger than {MAX_FILE >> 20} MiB")
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the chat adapter {text[:100]!r}: {error.strerror}") from None
    except ValueError:  # bad UTF-8, or a path that the system cannot have
        raise ConfigError(f"the chat adapter {text[:100]!r} is no UTF-8 text") from None
    return _parse(content, f"the chat adapter {path}")


def shipped_adapter(name: str) -> Adapter:
    """The adapter of that lower-case name; raises `KeyError`."""
    return Adapter(**SHIPPED[name])


def _parse(text: str, what: str) -> Adapter:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is not JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{what} must be a JSON object of tags")
    try:
        return Adapter.from_mapping(values)
    except RequestError as error:
        raise ConfigError(f"{what} is refused: {error}") from None
