"""What an endpoint says of itself to the API's description.

Bodies are read by hand, since Kobold's clients send JSON under any content type and want Kobold's
errors; so the models that read them are named here for `server.openapi`.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from server.wire.lenient import WireModel

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
FORM = "multipart/form-data"

EXTENSION = "x-nkat-endpoint"
"""Under which name a route carries its `Exchange`; the description itself never shows it."""


class Exchange(BaseModel):
    """What goes to an endpoint, and what comes back when all is well.

    `body`: the model of the request's body, None for an endpoint without one. `required`: whether the
    body may not be missing. `sent` and `answers`: media types of the body and of the answer.
    """

    model_config = ConfigDict(frozen=True)

    # Excluded because FastAPI writes the whole as JSON, which has no word for a class.
    body: type[WireModel] | None = Field(default=None, exclude=True)
    required: bool = True
    sent: tuple[str, ...] = (JSON,)
    answers: tuple[str, ...] = (JSON,)


def body_of(
    model: type[WireModel],
    *,
    required: bool = True,
    sent: tuple[str, ...] = (JSON,),
    answers: tuple[str, ...] = (JSON,),
) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint that reads its body with `model`; see `Exchange`."""
    return {EXTENSION: Exchange(body=model, required=required, sent=sent, answers=answers)}


class ErrorDetail(BaseModel):
    """What KoboldAI clients read of an error."""

    msg: str = Field(description="what is wrong, in one line")
    type: str = Field(
        description="its kind: bad_input, unauthorized, service_unavailable, server_error and others"
    )
    error: str | None = Field(default=None, description='"Unauthorized" where the key is missing')


class ErrorMessage(BaseModel):
    """What OpenAI's clients read of an error."""

    message: str = Field(description="what is wrong, in one line")
    type: str = Field(description="invalid_request_error, authentication_error or server_error")
    code: str = Field(description="the same word as `detail.type`")


class ErrorBody(BaseModel):
    """The body of an error, for KoboldAI's and OpenAI's clients alike."""

    detail: ErrorDetail = Field(description="for KoboldAI's clients")
    error: ErrorMessage = Field(description="for OpenAI's clients")


def failure(body: dict[str, JsonValue]) -> dict[str, Any]:
    """An entry of `responses`: an error that has no message and is always this body."""
    told = {"type": "object", "const": body}
    return {"description": "The request cannot be served.", "content": {JSON: {"schema": told}}}


Responses = dict[int | str, dict[str, Any]]


def failures_of(model: type[BaseModel]) -> Responses:
    """The `responses` of a dialect's router: the errors that all its endpoints may answer with `model`."""
    meanings = {
        "4XX": "The request cannot be served as it is; the message says what to change.",
        "500": "The body is not JSON or too large, or the server failed; the message says which.",
        "501": "Nothing of the kind is built.",
        "503": "No room at present, or what is asked for is not loaded.",
    }
    return {status: {"model": model, "description": meaning} for status, meaning in meanings.items()}
