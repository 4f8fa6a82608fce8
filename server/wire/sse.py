"""Server-sent events, byte for byte as Kobold clients need them: LF line ends and ASCII only."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.wire.disconnect import unless_gone
from server.wire.replies import ClientGoneError, to_json

DONE = b"data: [DONE]\n\n"


def named_event(content: Any) -> bytes:
    """An event with a name. Kobold Lite finds `event` and `data` by one pattern: do not vary it."""
    return f"event: message\ndata: {to_json(content)}\n\n".encode("ascii")


def plain_event(content: Any) -> bytes:
    """An event without a name, as OpenAI sends them."""
    return f"data: {to_json(content)}\n\n".encode("ascii")


def typed_event(content: Mapping[str, Any]) -> bytes:
    """An event named by its content's `type`, as Anthropic and OpenAI's responses send them."""
    return f"event: {content['type']}\ndata: {to_json(content)}\n\n".encode("ascii")


class EventStream(Response):
    """Sends `pieces` as they come, and closes them when the client leaves.

    Headers go out with the first piece, which may be empty: an error before it is still answered
    with a status of its own.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"content-type": "text/event-stream", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        try:
            await unless_gone(receive, self._send_all(send))
        except ClientGoneError:
            return

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            started = False
            async for piece in pieces:
                if not started:
                    head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                    await send(head)
                    started = True
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
