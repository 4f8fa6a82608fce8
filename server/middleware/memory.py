"""After a large request, memory is given back."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.memory import MemoryTrim


class MemoryReturn:
    """Pure ASGI. Counts what a request has sent; the work for it ends with its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._trim = MemoryTrim()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        try:
            await self._app(scope, count, send)
        finally:
            self._trim.note(received)
