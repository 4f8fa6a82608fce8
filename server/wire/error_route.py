"""Routes whose errors have a dialect's own shape."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import NkatError
from server.wire.replies import HttpError

RenderError = Callable[[HttpError | NkatError], Response]


class ErrorRoute(APIRoute):
    """A route whose errors `render_error` answers, those of a stream that has not begun included."""

    @staticmethod
    def render_error(error: HttpError | NkatError) -> Response:
        """The whole error answer, which each dialect gives."""
        raise NotImplementedError

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with its errors caught."""
        handle = super().get_route_handler()
        render_error = type(self).render_error

        async def answer(request: Request) -> Response:
            try:
                return _Answer(await handle(request), render_error)
            except (HttpError, NkatError) as error:
                return render_error(error)

        return answer


class _Answer(Response):
    """Sends `response`; an error before its head is sent instead of it."""

    def __init__(self, response: Response, render_error: RenderError) -> None:
        super().__init__()
        self._response = response
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._response(scope, receive, send)
        except (HttpError, NkatError) as error:
            await self._render_error(error)(scope, receive, send)
