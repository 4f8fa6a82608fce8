"""The messages between a rendering process and its owner: a length, a kind, and a text.

Requests are JSON. Replies are plain text: whatever a process sends, nothing of it is parsed.
"""

import struct
from enum import Enum

HEADER = struct.Struct(">BI")


class Kind(Enum):
    """What a message is."""

    REQUEST = 0
    READY = 1
    """The process has started, and its limits hold."""
    TEXT = 2
    """The prompt."""
    REFUSED = 3
    """The template has raised an error for every order of the messages."""
    STOPPED = 4
    """The template has met a limit of the sandbox."""
    BROKEN = 5
    """The template does not compile."""
    MEMORY = 6
    """The memory is used up: the process is of no more use."""


class WireError(Exception):
    """The other side has sent what no side sends."""


def pack(kind: Kind, body: bytes) -> bytes:
    """One message."""
    return HEADER.pack(kind.value, len(body)) + body


def unpack_header(header: bytes | bytearray) -> tuple[Kind, int]:
    """The kind of a message, and the bytes of its body. Raises `WireError`."""
    number, size = HEADER.unpack(header)
    try:
        return Kind(number), size
    except ValueError:
        raise WireError(f"there are no messages of kind {number}") from None


def encode(text: str) -> bytes:
    """UTF-8, in which halves of a surrogate pair survive, as clients may send them."""
    return text.encode("utf-8", "surrogatepass")


def decode(raw: bytes | bytearray) -> str:
    """The inverse of `encode`. Raises `WireError`."""
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise WireError("a text is not UTF-8") from None
