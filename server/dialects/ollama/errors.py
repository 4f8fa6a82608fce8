"""Errors in the shape that Ollama clients read."""

from pydantic import BaseModel, Field
from starlette.responses import Response

from engine.errors import NkatError
from server.wire.endpoint import ErrorDetail
from server.wire.error_route import ErrorRoute
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


class OllamaRoute(ErrorRoute):
    """A route whose errors have Ollama's shape."""

    @staticmethod
    def render_error(error: HttpError | NkatError) -> Response:
        """The whole error answer."""
        return error_reply(error)
