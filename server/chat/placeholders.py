"""Placeholders for an adapter's tags, which clients write when they leave the format to the server.

KoboldCpp's rules from 1.88 on: `{{[INPUT]}}` opens a user's turn, `{{[OUTPUT]}}` a reply, `{{[SYSTEM]}}`
a system's text, and `{{[INPUT_END]}}`, `{{[OUTPUT_END]}}`, `{{[SYSTEM_END]}}` close them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from server.chat.adapters import Adapter

INPUT = "{{[INPUT]}}"
OUTPUT = "{{[OUTPUT]}}"
SYSTEM = "{{[SYSTEM]}}"
INPUT_END = "{{[INPUT_END]}}"
OUTPUT_END = "{{[OUTPUT_END]}}"
SYSTEM_END = "{{[SYSTEM_END]}}"
_ANY = re.compile("|".join(map(re.escape, (INPUT, OUTPUT, SYSTEM, INPUT_END, OUTPUT_END, SYSTEM_END))))


@dataclass(frozen=True, slots=True)
class Filled:
    """A request's texts with tags in place of placeholders."""

    prompt: str
    memory: str
    stop: tuple[str, ...]


def fill_placeholders(adapter: Adapter, prompt: str, memory: str = "", stop: Iterable[str] = ()) -> Filled:
    """`prompt`, the `memory` before it and the `stop` strings with the adapter's tags.

    Clients that never close turns get the ends inferred: an input closes the reply before it, except
    the first input, and an output closes the user's turn. The last output is opened as the reply that
    is asked for. Memory and prompt count as one text here. A stop string that is a placeholder becomes
    its tag without blanks at the ends, and vanishes where nothing is left.
    """
    text = _Text(adapter, memory + prompt)
    memory, prompt = (_ANY.sub(text.next_tag, part) for part in (memory, prompt))
    tags = _tags(adapter) | {OUTPUT: adapter.assistant_stop}
    filled = (tags[entry].strip() if entry in tags else entry for entry in stop)
    return Filled(prompt, memory, tuple(dict.fromkeys(entry for entry in filled if entry)))


class _Text:
    """The tags of one text, asked for from its start to its end."""

    def __init__(self, adapter: Adapter, text: str) -> None:
        self._adapter = adapter
        self._tags = _tags(adapter)
        self._inferred = INPUT_END not in text and OUTPUT_END not in text
        self._inputs = 0
        self._outputs_left = text.count(OUTPUT)

    def next_tag(self, placeholder: re.Match[str]) -> str:
        name = placeholder[0]
        end, tag = "", self._tags[name]
        if name == INPUT:
            end = self._adapter.assistant_end if self._inputs else ""
            self._inputs += 1
        elif name == OUTPUT:
            end = self._adapter.user_end
            self._outputs_left -= 1
            tag = tag if self._outputs_left else self._adapter.reply_start
        return end + tag if self._inferred else tag


def _tags(adapter: Adapter) -> dict[str, str]:
    return {
        INPUT: adapter.user_start,
        OUTPUT: adapter.assistant_start,
        SYSTEM: adapter.system_start,
        INPUT_END: adapter.user_end,
        OUTPUT_END: adapter.assistant_end,
        SYSTEM_END: adapter.system_end,
    }
