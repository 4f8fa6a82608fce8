"""KoboldCpp's headers on every answer, and its answers to OPTIONS and HEAD.

The origin is always `*`, without credentials: pages need no more than that, and echoing the origin
together with `allow-credentials` would let any web page use cookies or client certificates that a
proxy in front of this server relies on.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.wire.replies import error_reply

# `*` does not cover Authorization in browsers, hence the names.
ALLOWED_HEADERS = (
    "*, Accept, Content-Type, Content-Length, Cache-Control, Accept-Encoding, X-CSRF-Token, "
    "Client-Agent, X-Fields, Content-Type, Authorization, X-Requested-With, "
    "X-HTTP-Method-Override, apikey, genkey"
)


class KoboldHeaders:
    """Pure ASGI. OPTIONS and HEAD are 200 and empty on any path and never ask for a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        private = "access-control-request-private-network" in Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["access-control-allow-origin"] = "*"
                headers["access-control-allow-methods"] = "*"
                headers["access-control-allow-headers"] = ALLOWED_HEADERS
                headers["cache-control"] = "no-store"
                if private:
                    headers["access-control-allow-private-network"] = "true"
            await send(message)

        answer: ASGIApp
        match scope["method"]:
            case "GET" | "POST":
                answer = self._app
            case "OPTIONS" | "HEAD":
                answer = HTMLResponse(headers={"content-type": "text/html"})
            case method:
                answer = error_reply(501, f"Unsupported method ({method!r})", "not_implemented")
        await answer(scope, receive, send_with_headers)
