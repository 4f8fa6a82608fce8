"""The endpoints of the Kobold dialect. They decide nothing: `convert` does."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from engine.types import GenerationRequest
from server.auth import KeyGuard
from server.dialects.kobold import convert
from server.dialects.kobold.info import add_info_routes
from server.dialects.kobold.schemas import NOT_YET, GenerateBody, KeyBody, TokenCountBody
from server.logs import OnceLog
from server.service import GenerationService, Origin
from server.settings import Settings
from server.wire.body import read_model, read_object
from server.wire.disconnect import unless_gone
from server.wire.replies import HttpError, JsonReply
from server.wire.sampler_fields import asked_in_vain
from server.wire.sse import EventStream, named_event


def kobold_routes(service: GenerationService, settings: Settings, guard: KeyGuard, log: OnceLog) -> APIRouter:
    """All routes of the dialect."""
    router = APIRouter()
    with_key = [Depends(guard.require)]
    limit = settings.maxrequestsize

    async def read_request(request: Request) -> tuple[GenerationRequest, Origin]:
        body = await read_model(request, GenerateBody, limit)
        log.tell(asked_in_vain(body, NOT_YET))
        wanted = convert.to_request(body, f"kobold-{secrets.token_hex(8)}", settings.defaultgenamt)
        return wanted, Origin(_address(request), body.genkey)

    async def read_origin(request: Request) -> Origin:
        try:
            key = KeyBody.model_validate(await read_object(request, limit)).genkey
        except (HttpError, ValidationError):
            key = ""  # clients abort without a body, or with any
        return Origin(_address(request), key)

    @router.post("/api/v1/generate", dependencies=with_key)
    async def generate(request: Request) -> JsonReply:
        wanted, origin = await read_request(request)
        replies = await unless_gone(request.receive, service.generate(wanted, origin=origin))
        return JsonReply(convert.from_reply(replies[0]))

    @router.post("/api/extra/generate/stream", dependencies=with_key)
    async def stream(request: Request) -> EventStream:
        wanted, origin = await read_request(request)
        return EventStream(_pieces(service, wanted, origin))

    @router.post("/api/extra/generate/check", dependencies=with_key)
    async def check(request: Request) -> JsonReply:
        return JsonReply(convert.check_reply(service.text_so_far(await read_origin(request))))

    @router.get("/api/extra/generate/check", dependencies=with_key)
    async def check_keyless(request: Request) -> JsonReply:
        return JsonReply(convert.check_reply(service.text_so_far(Origin(_address(request)))))

    @router.post("/api/extra/abort", dependencies=with_key)
    async def abort(request: Request) -> JsonReply:
        return JsonReply(convert.abort_reply(service.abort(await read_origin(request))))

    @router.post("/api/extra/tokencount", dependencies=with_key)
    async def token_count(request: Request) -> JsonReply:
        try:
            body = await read_model(request, TokenCountBody, limit)
        except HttpError:
            return JsonReply({"value": -1}, 400)
        ids = await service.count(body.prompt, special=body.special)
        return JsonReply({"value": len(ids), "ids": ids})

    add_info_routes(router, service, settings, guard)
    return router


async def _pieces(
    service: GenerationService, wanted: GenerationRequest, origin: Origin
) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.stream(wanted, origin=origin)) as events:
        async for event in events:
            piece = convert.from_event(event)
            yield named_event(piece) if piece is not None else b""


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""
