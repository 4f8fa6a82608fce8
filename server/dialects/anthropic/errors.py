"""Errors in the shape that Anthropic clients read."""

from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from engine.errors import ContextOverflowError, NkatError
from server.wire.endpoint import ErrorDetail
from server.wire.error_route import ErrorRoute
from server.wire.replies import HttpError, JsonReply, error_body, status_of

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    500: "api_error",
    503: "overloaded_error",
}


class AnthropicError(BaseModel):
    """What is wrong."""

    type: str = Field(description="its kind, such as invalid_request_error or overloaded_error")
    message: str = Field(description="what is wrong, in one line")


class AnthropicErrorBody(BaseModel):
    """The body of an error."""

    type: Literal["error"] = Field(description="tells an error from a message")
    error: AnthropicError = Field(description="for Anthropic's clients")
    detail: ErrorDetail = Field(description="for KoboldAI's clients")


def error_reply(error: HttpError | NkatError) -> Response:
    """A whole error answer, with KoboldCpp's `detail` beside Anthropic's `error`.

    What the client can mend is always 400: Anthropic's clients send a request again after a 500.
    """
    if isinstance(error, HttpError):
        status, kind = error.status, error.kind
    else:
        status, kind = status_of(error)
    if kind == "bad_input":
        status = 400
    message = str(error)
    if isinstance(error, ContextOverflowError):
        # The words by which Anthropic's clients know that they have to shorten the conversation.
        message = f"prompt is too long: {error.prompt_tokens} tokens > {error.context} maximum"
    body = error_body(status, message, kind)
    shown = {"type": TYPES.get(status, "api_error"), "message": message}
    return JsonReply(body | {"type": "error", "error": shown}, status)


class AnthropicRoute(ErrorRoute):
    """A route whose errors have Anthropic's shape."""

    @staticmethod
    def render_error(error: HttpError | NkatError) -> Response:
        """The whole error answer."""
        return error_reply(error)
