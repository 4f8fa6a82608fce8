"""The thoughts and the answer in Harmony, the format of gpt-oss.

A reply is a row of messages: `<|channel|>NAME<|message|>TEXT<|end|>`, from the second on with
`<|start|>assistant` in front. The channel `analysis` holds thoughts; a header with `to=functions.NAME`
makes the text a call's arguments, and `<|call|>` ends it.
"""

import re
from enum import Enum, auto

from server.chat.markers import Piece, find_marker, held_back

START = "<|start|>"
BODY = "<|message|>"
CHANNEL = "<|channel|>"
CALL = "<|call|>"
FINAL_HEADER = f"{CHANNEL}final{BODY}"
MAX_HEADER = 256
"""Characters; a longer one is no header."""

_ENDS = ("<|end|>", CALL, "<|return|>", START, CHANNEL)
_HEADER_STARTS = ("<|", "to=")
_CHANNEL_NAME = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=functions\.([^\s<]+)")


class _Place(Enum):
    """Where in the reply the text so far ends."""

    HEADER = auto()
    THOUGHT = auto()
    CALL = auto()
    ANSWER = auto()


def call_header(name: str) -> str:
    """The header of a call of the function `name`, as the model was taught it."""
    return f"{CHANNEL}commentary to=functions.{name} <|constrain|>json{BODY}"


class ChannelSplitter:
    """Splits a reply by its channels; `reasoning.Splitter` is the contract.

    `begun` is what the prompt has after its last `<|start|>`: a role, maybe a header and the beginning of
    a message. With `calls`, calls come among the answer's pieces with their header in one form, for a
    parser to find; without, they are text. `keep_tags`: see `reasoning.Family.splitter`.
    """

    def __init__(self, begun: str, *, keep_tags: bool = False, calls: bool = False) -> None:
        self._keep_tags = keep_tags
        self._calls = calls
        self._held = ""
        self._place = _Place.HEADER
        self._said: set[_Place] = set()
        """Places of which there was text; a further message there is a paragraph of its own."""
        self._fresh = True
        """The message has had no text yet."""
        header, found, body = begun.partition(BODY)
        self._begun = begun
        if found and find_marker(body, _ENDS) is None:
            self._place = self._place_of(header)
            self._fresh = False

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside a thought."""
        return self._place is _Place.THOUGHT

    def push(self, text: str) -> list[Piece]:
        """More of the reply -> what is decided by now."""
        self._held += text
        pieces: list[Piece] = []
        while self._read_header(pieces) if self._place is _Place.HEADER else self._read_body(pieces):
            pass
        return [piece for piece in pieces if piece.text]

    def flush(self) -> list[Piece]:
        """The reply has ended -> what was held back; half a header is nothing."""
        rest, self._held = self._held, ""
        if self._place is _Place.HEADER:
            return [Piece(rest, False)] if rest and not rest.lstrip().startswith("<") else []
        return [piece for piece in self._body(rest) if piece.text]

    def _read_header(self, pieces: list[Piece]) -> bool:
        """Whether a header is complete, or the text turns out to be none."""
        text = self._held
        bare = text.lstrip()
        likely = any(bare.startswith(start) or start.startswith(bare) for start in _HEADER_STARTS)
        end = text.find(BODY) + len(BODY) if BODY in text else None
        if likely and end is None and len(text) < MAX_HEADER:
            return False
        self._fresh = True
        if not likely or end is None or end > MAX_HEADER:
            self._place = _Place.ANSWER
            # A tag that begins no header is text, or the body would find it and come back here.
            told = len(text) - len(bare) + 1 if likely else 0
            pieces += self._body(text[:told])
            self._held = text[told:]
            return True
        header, self._begun = self._begun + text[:end], ""
        self._held = text[end:]
        self._place = self._place_of(header)
        recipient = _RECIPIENT.search(header)
        if self._place is _Place.CALL and recipient is not None:
            pieces.append(Piece(call_header(recipient[1]), False))
        elif self._keep_tags:
            pieces.append(Piece(text[:end], True))
        return True

    def _read_body(self, pieces: list[Piece]) -> bool:
        """Whether a message has ended."""
        marker = find_marker(self._held, _ENDS)
        if marker is None:
            decided = len(self._held) - held_back(self._held, _ENDS)
            pieces += self._body(self._held[:decided])
            self._held = self._held[decided:]
            return False
        pieces += self._body(self._held[: marker.start])
        opens = marker.text in (START, CHANNEL)
        self._held = self._held[marker.start if opens else marker.end :]
        if self._place is _Place.CALL:
            pieces.append(Piece(CALL, False))
        elif self._keep_tags and self.thinking and not opens:
            pieces.append(Piece(marker.text, True))
        self._place = _Place.HEADER
        return True

    def _body(self, text: str) -> list[Piece]:
        if not text:
            return []
        apart = self._fresh and self._place in self._said and not self._keep_tags
        self._fresh = False
        if self._place is not _Place.CALL:
            self._said.add(self._place)
            text = "\n\n" + text if apart else text
        return [Piece(text, self.thinking)]

    def _place_of(self, header: str) -> _Place:
        if self._calls and _RECIPIENT.search(header):
            return _Place.CALL
        channel = _CHANNEL_NAME.search(header)
        return _Place.THOUGHT if channel and channel[1] == "analysis" else _Place.ANSWER
