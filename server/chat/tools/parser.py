"""Finds the calls of tools in an answer while it comes."""

import secrets
from collections.abc import Sequence

from server.chat.call import Tool
from server.chat.markers import find_marker, held_back
from server.chat.message import ToolCallDelta
from server.chat.tools.format import ToolFormat
from server.chat.tools.readers import CallReader
from server.chat.tools.schemas import ArgumentTypes


def call_id() -> str:
    """A fresh id: its last nine characters are of the kind that Mistral's templates insist on."""
    return "call_" + secrets.token_hex(5)[:9]


class ToolCallParser:
    """Takes an answer's text and gives back text and calls; any cutting of it gives the same.

    Text passes on as it comes, but for blanks at its end and what may begin a call. Blanks before and
    after calls are no text. What looks like a call and is none passes on as text.
    """

    def __init__(self, format: ToolFormat, tools: Sequence[Tool]) -> None:
        self._format = format
        self._types = ArgumentTypes(tools)
        self._markers = (*format.openers, *format.sections)
        self._held = ""
        self._reader: CallReader | None = None
        self._opener = ""
        """The reader's opening tag, with the blanks before it."""
        self._given: str | None = None
        """The opening tag and what the reader was given; None once a call came of it."""
        self._at_start = True
        """Only blanks so far, so that a bare call may begin."""
        self._after_call = False
        self._index = -1
        self._has_arguments = True

    @property
    def calls(self) -> int:
        """How many calls there were so far."""
        return self._index + 1

    @property
    def calling(self) -> bool:
        """Whether the text so far ends in a call."""
        return self._reader is not None

    def push(self, text: str) -> list[str | ToolCallDelta]:
        """More of the answer -> the text and the calls that are decided by now."""
        self._held += text
        found: list[str | ToolCallDelta] = []
        while self._step(found):
            pass
        return found

    def flush(self) -> list[str | ToolCallDelta]:
        """The answer has ended -> what was held back; of an unfinished call what is known of it."""
        found: list[str | ToolCallDelta] = []
        if self._reader is not None:
            self._reader.finish()
            self._deliver(self._reader, found)
            self._say(self._given or "", found)
        elif not self._after_call:
            self._say(self._held, found)
        self._held, self._reader = "", None
        return found

    def _step(self, found: list[str | ToolCallDelta]) -> bool:
        """Whether there was something to do: a marker, a call's end."""
        if self._reader is not None:
            return self._read_call(self._reader, found)
        if self._after_call and not self._skip_closers():
            return False
        return self._read_text(found)

    def _read_call(self, reader: CallReader, found: list[str | ToolCallDelta]) -> bool:
        if self._given is not None:
            self._given += self._held
        rest = reader.push(self._held)
        self._deliver(reader, found)
        if reader.failed and self._given is not None:
            # No call: its beginning is text, and what follows may still hold one.
            start = self._opener or self._given[:1]
            self._say(start, found)
            self._held = self._given[len(start) :]
            self._after_call = self._at_start = False
        elif reader.done or reader.failed:
            self._close_arguments(found)
            self._held = rest
            self._after_call = True
        else:
            self._held = rest
            return False
        self._reader = None
        return bool(self._held)

    def _deliver(self, reader: CallReader, found: list[str | ToolCallDelta]) -> None:
        for part in reader.take():
            self._given = None
            if part.name is not None:
                self._close_arguments(found)
                self._index += 1
                self._has_arguments = False
                found.append(ToolCallDelta(self._index, id=call_id(), name=part.name))
            if part.arguments:
                self._has_arguments = True
                found.append(ToolCallDelta(self._index, arguments=part.arguments))

    def _close_arguments(self, found: list[str | ToolCallDelta]) -> None:
        if not self._has_arguments:
            found.append(ToolCallDelta(self._index, arguments="{}"))
            self._has_arguments = True

    def _skip_closers(self) -> bool:
        """Drop blanks and closing tags after a call; whether other text has come."""
        closers = (*self._format.closers, *self._format.sections)
        text = self._held.lstrip()
        while closer := next((closer for closer in closers if text.startswith(closer)), None):
            text = text[len(closer) :].lstrip()
        self._held = text
        if not text or any(marker.startswith(text) for marker in (*closers, *self._format.openers)):
            return text in self._format.openers
        self._after_call = False
        return True

    def _read_text(self, found: list[str | ToolCallDelta]) -> bool:
        text = self._held
        blank = not text.strip()
        if self._format.bare and self._at_start and text.lstrip()[:1] in ("{", "["):
            self._open("")
            return True
        self._at_start = self._at_start and blank
        marker = find_marker(text, self._markers)
        if marker is None:
            decided = len(text[: len(text) - held_back(text, self._markers)].rstrip())
            self._say(text[:decided], found)
            self._held = text[decided:]
            return False
        said = text[: marker.start].rstrip()
        self._say(said, found)
        self._held = text[marker.end :]
        if marker.text in self._format.openers:
            self._open(text[len(said) : marker.end])
        else:
            self._after_call = True
        return True

    def _open(self, opener: str) -> None:
        """A call begins after `opener`, or as the text that is held."""
        self._reader = self._format.reader(self._types)
        self._opener = self._given = opener

    @staticmethod
    def _say(text: str, found: list[str | ToolCallDelta]) -> None:
        if text:
            found.append(text)
