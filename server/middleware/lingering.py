"""Answers that come before the request was read: the connection stays open until the client has sent it.

A server that closes while the client still sends resets the connection, and the client loses the answer: it
sees a network error where it was told 401. KoboldCpp reads every body before it answers.
"""

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMIT = 64 << 20
"""Bytes that are read in vain; a client that sends more is cut off."""
PATIENCE = 0.5
"""Seconds without a byte after which nothing more is expected."""
LONGEST = 30.0
"""Seconds for all that is read in vain."""


class LingeringClose:
    """Pure ASGI. The answer goes out at once; only its end waits."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A client that waits for 100 Continue sends nothing once it is answered.
        read = "expect" in Headers(scope=scope)

        async def watch() -> Message:
            nonlocal read
            message = await receive()
            read = read or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def linger(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if read or not last:
                await send(message)
                return
            await send({**message, "more_body": True})
            left = LIMIT
            loop = asyncio.get_running_loop()
            end = loop.time() + LONGEST
            with contextlib.suppress(TimeoutError):
                while not read and left > 0 and (time := end - loop.time()) > 0:
                    left -= len((await asyncio.wait_for(watch(), min(PATIENCE, time))).get("body", b""))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, watch, linger)
