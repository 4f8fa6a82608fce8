"""What a format of calls is: how to find calls, how to read them, and how to hold a model to it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.types import Tag, TaggedGrammar
from server.chat.call import Tool
from server.chat.tools.readers import CallReader
from server.chat.tools.schemas import ArgumentTypes, arguments_schema


@dataclass(frozen=True, slots=True)
class Spelling:
    """A call as text: `before`, the name, `between`, the arguments' JSON, `after`.

    `quoted`: the name is a JSON string. `section`: what stands before the first call and after the last.
    """

    before: str
    between: str
    after: str
    quoted: bool = False
    section: tuple[str, str] = ("", "")

    def begin(self, name: str) -> str:
        """The text up to the arguments."""
        written = json.dumps(name, ensure_ascii=False) if self.quoted else name
        return f"{self.before}{written}{self.between}"

    def write(self, name: str, arguments: str) -> str:
        """A whole call."""
        return f"{self.begin(name)}{arguments}{self.after}"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How the models of one family call tools.

    `openers` begin a call; `reader` reads what follows. `closers` may stand after a call, and `sections`
    anywhere round calls; neither is text. `bare`: a reply that is JSON from its start is a call, without
    an opener. `spelling` is what a model can be held to; a format whose arguments are no JSON has none.
    """

    openers: tuple[str, ...]
    reader: Callable[[ArgumentTypes], CallReader]
    closers: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    bare: bool = False
    spelling: Spelling | None = None

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> TaggedGrammar | None:
        """What the reply must keep to: arguments of every call fit its tool's schema.

        None where the format has no spelling, or where text and calls begin alike and text is allowed.
        A reply that must call, in a format with sections, is one section with one call.
        """
        spelling = self.spelling
        if spelling is None or (self.bare and not required):
            return None
        opening, closing = spelling.section if required else ("", "")
        # An opener binds from its last letter on, not only once all of `before` is spelled right.
        opener = self.openers[0]
        trigger = opening or (opener if spelling.before.startswith(opener) else spelling.before)
        tags = tuple(
            Tag(
                opening + spelling.begin(tool.name),
                arguments_schema(tool),
                spelling.after + closing,
                tool.name,
            )
            for tool in tools
        )
        return TaggedGrammar(
            trigger=trigger,
            tags=tags,
            required=required,
            several=several and not opening and not self.bare,
        )
