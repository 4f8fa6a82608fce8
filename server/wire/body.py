"""Reading request bodies: JSON whatever the Content-Type says, with limits."""

import codecs
import json
import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from server.middleware.bodies import SHARE
from server.pools import WorkPool
from server.wire.body_budget import BodyBudget, BodyShare
from server.wire.json_size import VALUES, has_too_many_values
from server.wire.lenient import WireModel
from server.wire.replies import ClientGoneError, HttpError

Body = TypeVar("Body", bound=WireModel)
Parsed = TypeVar("Parsed")

prompts = logging.getLogger("server.prompts")
"""What clients send, word for word. Silent unless the user asks for it."""

NAME_SHOWN = 64
"""Characters of a field's name that errors repeat: names may be the client's own, and of any length."""

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


LARGE = 1 << 16
"""Bytes of a body that is parsed in a thread: less takes a millisecond at most."""


class TooLargeError(HttpError):
    """The body is larger than its endpoint takes; KoboldCpp's answer."""

    def __init__(self, limit: int) -> None:
        shown = f"{limit >> 20}MB" if limit >= 1 << 20 else f"{limit >> 10}KB"
        super().__init__(500, f"Payload is too big. Max payload size is {shown}.")


async def read_model(request: Request, model: type[Body], limit: int) -> Body:
    """The request's body as `model`, of at most `limit` bytes.

    Raises `HttpError`, of which `TooLargeError` is one, `ClientGoneError`, `BusyError`.
    """

    def parse(raw: bytes) -> Body:
        try:
            return model.model_validate(_parse(raw))
        except ValidationError as error:
            raise HttpError(422, describe(error)) from None

    return await _read(request, limit, parse)


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """The request's body as a JSON object, of at most `limit` bytes. Raises as `read_model` does."""
    return await _read(request, limit, _parse)


async def _read(request: Request, limit: int, parse: Callable[[bytes], Parsed]) -> Parsed:
    # A router may also stand alone, without what the application puts around it.
    share: BodyShare = request.scope.get(SHARE) or BodyBudget().open()
    raw = await _read_bytes(request, limit, share)
    if prompts.isEnabledFor(logging.DEBUG):
        prompts.debug("%s %s", request.url.path, raw.decode("utf-8", "replace"))
    if len(raw) <= LARGE:
        return parse(raw)
    pool: WorkPool = request.app.state.body_pool
    return await pool.run(parse, raw)


def _parse(raw: bytes) -> dict[str, Any]:
    """A JSON object. Raises `HttpError`."""
    try:
        raw = _as_utf8(raw)
        if has_too_many_values(raw):
            raise HttpError(413, f"The request body holds more than {VALUES} values.")
        value = json.loads(raw.decode("utf-8"))
        if _SURROGATE_ESCAPE.search(raw):
            # Clients that cut text at UTF-16 units send half characters, which no tokenizer takes.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise HttpError(500, "Error parsing input.") from None
    if not isinstance(value, dict):
        raise HttpError(400, "The request body must be a JSON object.")
    return value


def _as_utf8(raw: bytes) -> bytes:
    """JSON text in UTF-8 without a byte order mark, of text in UTF-8, UTF-16 or UTF-32 with or without one.

    RFC 4627's rule: the first two characters are ASCII, so zeros among the first bytes tell the encoding.
    Half characters of UTF-16 become question marks. Raises `ValueError` for what is none of the three.
    """
    encoding = json.detect_encoding(raw)
    if encoding == "utf-8":
        return raw
    if encoding == "utf-8-sig":
        return raw.removeprefix(codecs.BOM_UTF8)
    return raw.decode(encoding, "surrogatepass").encode("utf-8", "replace")


async def _read_bytes(request: Request, limit: int, share: BodyShare) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLargeError(limit)
    body = bytearray()
    length = 0
    try:
        async for chunk in request.stream():
            length += len(chunk)
            if length <= limit:
                share.grow_to(length)
                body += chunk
            elif length > 2 * limit:
                break
    except ClientDisconnect:
        raise ClientGoneError from None
    # Read to the end where that is near: a client that still sends does not see an early answer.
    if length > limit:
        raise TooLargeError(limit)
    return bytes(body)


def describe(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # A union's branches appear in the path as well, by names that mean nothing to a client.
    places = (
        str(part)[:NAME_SHOWN] for part in first["loc"] if str(part).isidentifier() or type(part) is int
    )
    where = ".".join(places)
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
