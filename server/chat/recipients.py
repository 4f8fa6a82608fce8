"""The answer and the calls in Functionary's format, of version 3.2.

A reply is a row of parts, `>>>NAME` and a line end in front of each: `all` is the user, any other name a
function, and the part its arguments. The prompt ends in the first `>>>`.
"""

import re

from server.chat.channels import CALL, call_header
from server.chat.markers import Piece

MARK = ">>>"
USER = "all"

_NAME = r"[\w./:-]{1,128}"
_HEADER = re.compile(rf"({_NAME})\n")
_BEGUN_HEADER = re.compile(rf"(?:{_NAME})?")
_NEXT = re.compile(rf"{MARK}({_NAME})\n")
_BEGUN_NEXT = re.compile(rf">{{1,2}}$|{MARK}(?:{_NAME})?$")


class RecipientSplitter:
    """Splits a reply by its recipients; `reasoning.Splitter` is the contract. There are no thoughts.

    `opened`: the prompt ends in the mark, so that the reply begins with a name. With `calls`, calls come
    among the answer's pieces in Harmony's form, for a parser to find; without, all parts are text.
    """

    thinking = False

    def __init__(self, *, opened: bool, calls: bool) -> None:
        self._calls = calls
        self._held = ""
        self._at_name = opened
        self._in_call = False

    def push(self, text: str) -> list[Piece]:
        """More of the reply -> what is decided by now."""
        self._held += text
        pieces: list[Piece] = []
        if self._at_name:
            header = _HEADER.match(self._held)
            if header is None and _BEGUN_HEADER.fullmatch(self._held):
                return []
            self._at_name = False
            if header is not None:
                self._begin(header[1], pieces)
                self._held = self._held[header.end() :]
        while (following := _NEXT.search(self._held)) is not None:
            pieces.append(Piece(self._held[: following.start()], False))
            self._begin(following[1], pieces)
            self._held = self._held[following.end() :]
        begun = _BEGUN_NEXT.search(self._held)
        decided = len(self._held) if begun is None else begun.start()
        pieces.append(Piece(self._held[:decided], False))
        self._held = self._held[decided:]
        return [piece for piece in pieces if piece.text]

    def flush(self) -> list[Piece]:
        """The reply has ended -> what was held back."""
        rest, self._held = self._held, ""
        return [Piece(rest, False)] if rest else []

    def _begin(self, name: str, pieces: list[Piece]) -> None:
        if self._in_call:
            pieces.append(Piece(CALL, False))
        self._in_call = self._calls and name != USER
        if self._in_call:
            pieces.append(Piece(call_header(name), False))
        elif name != USER:
            pieces.append(Piece(f"{MARK}{name}\n", False))
