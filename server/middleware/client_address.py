"""Who a request comes from, for all that shares work among clients."""

from starlette.types import ASGIApp, Receive, Scope, Send

from server.pools import client


class ClientAddress:
    """Pure ASGI. Sets the context variable that the pools read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        address = scope.get("client")
        token = client.set("" if address is None else address[0])
        try:
            await self._app(scope, receive, send)
        finally:
            client.reset(token)
