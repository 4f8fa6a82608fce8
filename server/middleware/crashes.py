"""The last resort: an unforeseen exception becomes an answer that a client can read."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.wire.replies import error_reply

logger = logging.getLogger(__name__)


class CrashBoundary:
    """Pure ASGI. Sits inside `KoboldHeaders`, so that the answer has the headers that pages need."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            if started or scope["type"] != "http":
                raise
            logger.exception("unforeseen error in %s %s", scope["method"], scope["path"])
            reply = error_reply(500, "Internal error; the server's log says more.", "server_error")
            await reply(scope, receive, send)
