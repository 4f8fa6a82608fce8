"""A short id for each request, on each of its log lines."""

import secrets

from starlette.types import ASGIApp, Receive, Scope, Send

from server.logs import request_id


class RequestId:
    """Pure ASGI. Sets the context variable that the log filter reads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        token = request_id.set(secrets.token_hex(4))
        try:
            await self._app(scope, receive, send)
        finally:
            request_id.reset(token)
