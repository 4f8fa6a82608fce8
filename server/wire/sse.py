"""Server-sent events, byte for byte as Kobold clients need them: LF line ends and ASCII only."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.wire.disconnect import unless_gone
from server.wire.replies import ClientGoneError, to_json

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
"""A comment, which clients leave out."""
PING_SECONDS = 10.0
"""Silence after which one is sent, while a request waits for its place or its prompt is read.

Proxies and clients close streams that say nothing for half a minute or a minute.
"""


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
    with a status of its own. After it a comment is sent whenever nothing has come for a while.
    """

    filler = PING
    """What is sent in silence; may be empty."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"content-type": "text/event-stream", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces
        self._pinging: asyncio.Task[None] | None = None
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        try:
            await unless_gone(receive, self._send_all(send))
        except ClientGoneError:
            return
        finally:
            self._stop_pinging()

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                if self._pinging is None:
                    head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                    await send(head)
                    self._pinging = asyncio.create_task(self._ping(send))
                if piece:
                    await self._send(send, piece)
            self._stop_pinging()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        """Send a comment after each `PING_SECONDS` of silence."""
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        while self.filler:
            silence = loop.time() - self._sent_at
            if silence >= PING_SECONDS:
                await self._send(send, self.filler)
            else:
                await asyncio.sleep(PING_SECONDS - silence)

    def _stop_pinging(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()

    async def _send(self, send: Send, piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._sent_at = asyncio.get_running_loop().time()
