"""Streams of lines, each a JSON object."""

from collections.abc import AsyncGenerator
from typing import Any

from server.wire.replies import to_json
from server.wire.sse import EventStream


class LineStream(EventStream):
    """Sends lines as they come, and closes their source when the client leaves."""

    # Lines know no comments.
    filler = b""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(pieces)
        self.headers["content-type"] = "application/x-ndjson"


def line(content: Any) -> bytes:
    """One line."""
    return f"{to_json(content)}\n".encode("ascii")
