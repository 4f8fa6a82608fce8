"""Replies and errors in the shape that all clients read.

Kobold clients look at `detail.msg` and `detail.type`, OpenAI clients at `error.message`; one body
carries both, since it is not always known who asks.
"""

import json
from typing import Any

from fastapi import Request
from starlette.responses import HTMLResponse, Response

from engine.errors import BusyError, ContextOverflowError, EngineDeadError, NkatError, RequestError

UNKNOWN_PATH = "Error: HTTP Server is running, but this endpoint does not exist. Please check the URL."

_OPENAI_TYPES = dict.fromkeys((400, 404, 422), "invalid_request_error") | {401: "authentication_error"}


class HttpError(Exception):
    """An answer that ends the handling of a request: status, message, and Kobold's word for the kind."""

    def __init__(self, status: int, message: str, kind: str = "bad_input") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind


class ClientGoneError(Exception):
    """The client closed the connection; nobody hears the answer."""


class JsonReply(Response):
    """JSON in ASCII: several clients stumble over raw U+2028, and over nothing else."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """`content` as JSON text with escapes for everything beyond ASCII."""
        return to_json(content).encode("ascii")


def to_json(content: Any) -> str:
    """`content` as ASCII JSON in one line."""
    return json.dumps(content, ensure_ascii=True, allow_nan=False)


def error_body(status: int, message: str, kind: str) -> dict[str, Any]:
    """The body of an error answer, for Kobold and OpenAI clients alike."""
    detail = {"msg": message, "type": kind}
    if status == 401:
        detail = {"error": "Unauthorized"} | detail
    error = {"message": message, "type": _OPENAI_TYPES.get(status, "server_error"), "code": kind}
    return {"detail": detail, "error": error}


def error_reply(status: int, message: str, kind: str) -> Response:
    """A whole error answer."""
    return JsonReply(error_body(status, message, kind), status)


def overflow_fields(error: Exception) -> dict[str, Any]:
    """What clients that shorten their prompts read of an error, in llama.cpp's words; nothing for others."""
    if not isinstance(error, ContextOverflowError):
        return {}
    return {
        "type": "exceed_context_size_error",
        "code": "context_length_exceeded",
        "n_prompt_tokens": error.prompt_tokens,
        "n_ctx": error.context,
    }


def status_of(error: NkatError) -> tuple[int, str]:
    """HTTP status and Kobold's word for an error of the project."""
    match error:
        case BusyError():
            return 503, "service_unavailable"
        case RequestError():
            return 400, "bad_input"
        case EngineDeadError():
            return 500, "server_error"
    return 500, "server_error"


async def render_http_error(request: Request, error: Exception) -> Response:
    """Handler for `HttpError`."""
    assert isinstance(error, HttpError)
    return error_reply(error.status, error.message, error.kind)


async def render_nkat_error(request: Request, error: Exception) -> Response:
    """Handler for the project's own errors."""
    assert isinstance(error, NkatError)
    status, kind = status_of(error)
    body = error_body(status, str(error), kind)
    return JsonReply(body | {"error": body["error"] | overflow_fields(error)}, status)


async def render_client_gone(request: Request, error: Exception) -> Response:
    """Handler for `ClientGoneError`: something to return, which goes nowhere."""
    return Response(status_code=499)


async def render_unknown_path(request: Request, error: Exception) -> Response:
    """Handler for 404 and 405, which KoboldCpp does not tell apart; a POST gets an empty body."""
    return HTMLResponse(UNKNOWN_PATH if request.method == "GET" else "", 404)
