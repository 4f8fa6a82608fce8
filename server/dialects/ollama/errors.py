"""Errors in the shape that Ollama clients read."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import NkatError
from server.wire.endpoint import ErrorDetail
from server.wire.replies import HttpError, JsonReply, error_body, status_of


class OllamaErrorBody(BaseModel):
    """The body of an error."""

    error: str = Field(description="what is wrong, in one line")
    detail: ErrorDetail = Field(description="for KoboldAI's clients")


def error_reply(error: HttpError | NkatError) -> Response:
    """A whole error answer: the message is the value of `error`, with KoboldCpp's `detail` beside it.

    What the client can mend is always 400, as at Ollama.
    """
    if isinstance(error, HttpError):
        status, kind = error.status, error.kind
    else:
        status, kind = status_of(error)
    if kind == "bad_input":
        status = 400
    return JsonReply(error_body(status, str(error), kind) | {"error": str(error)}, status)


class OllamaRoute(APIRoute):
    """A route whose errors have Ollama's shape, those of a stream that has not begun included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, with its errors caught."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return _Answer(await handle(request))
            except (HttpError, NkatError) as error:
                return error_reply(error)

        return answer


class _Answer(Response):
    """Sends `response`; an error before its head is sent instead of it."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._response(scope, receive, send)
        except (HttpError, NkatError) as error:
            await error_reply(error)(scope, receive, send)
