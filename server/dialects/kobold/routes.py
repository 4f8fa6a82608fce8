"""The generating endpoints of the Kobold dialect. They decide nothing: `convert` does."""

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from engine.types import GenerationRequest
from server.auth import KeyGuard
from server.chat.adapters import Adapter
from server.chat.planner import ChatPlanner
from server.chat.reasoning import family_of
from server.dialects.kobold import convert
from server.dialects.kobold.info import add_info_routes
from server.dialects.kobold.media import add_media_routes
from server.dialects.kobold.saves import add_save_routes
from server.dialects.kobold.schemas import LEFT_OUT, NOT_YET, BasicBody, GenerateBody, KeyBody
from server.dialects.kobold.tokens import add_token_routes
from server.logs import UnsupportedLog
from server.savedata import SaveData
from server.service import GenerationService, Origin
from server.settings import Settings
from server.wire.body import TooLargeError, read_model, read_object
from server.wire.body_limits import SMALL_BODY
from server.wire.disconnect import unless_gone
from server.wire.endpoint import EVENTS, ErrorBody, body_of, failures_of
from server.wire.origin import origin_of
from server.wire.replies import HttpError, JsonReply
from server.wire.sampler_fields import asked_in_vain
from server.wire.sse import EventStream, named_event


def kobold_routes(
    service: GenerationService,
    settings: Settings,
    guard: KeyGuard,
    log: UnsupportedLog,
    *,
    planner: ChatPlanner,
    adapter: Adapter,
    story: Mapping[str, Any],
    saves: SaveData | None,
) -> APIRouter:
    """All routes of the dialect.

    `adapter`: the tags that placeholders stand for. `story`: what Kobold Lite begins with; may be empty.
    `saves`: where clients keep data on the server, if they may.
    """
    router = APIRouter(tags=["KoboldAI"], responses=failures_of(ErrorBody))
    with_key = [Depends(guard.require)]
    which = body_of(KeyBody, required=False)
    limit = settings.largest_body
    family = family_of(service.info.chat_template)

    def to_request(body: GenerateBody) -> GenerationRequest:
        log.tell(asked_in_vain(body, NOT_YET))
        log.tell_each(asked_in_vain(body, LEFT_OUT))
        name = f"kobold-{secrets.token_hex(8)}"
        context = service.info.context_length
        return convert.to_request(body, name, settings.defaultgenamt, adapter, family, context)

    async def read_request(request: Request) -> tuple[GenerationRequest, Origin]:
        body = await read_model(request, GenerateBody, limit)
        return to_request(body), origin_of(request, body.genkey)

    async def read_origin(request: Request) -> Origin:
        try:
            key = KeyBody.model_validate(await read_object(request, SMALL_BODY)).genkey
        except TooLargeError:
            raise
        except (HttpError, ValidationError):
            key = ""  # clients abort without a body, or with any
        return origin_of(request, key)

    @router.post("/api/v1/generate", dependencies=with_key, openapi_extra=body_of(GenerateBody))
    async def generate(request: Request) -> JsonReply:
        """Continue a text, and answer when it is done.

        The whole text is in `results[0].text`. `finish_reason` is `stop` where the model ended it or a stop
        string was met, else `length`. A client that leaves ends the generation.
        """
        wanted, origin = await read_request(request)
        replies = await unless_gone(request.receive, service.generate(wanted, origin=origin))
        return JsonReply(convert.from_reply(replies[0]))

    @router.post(
        "/api/extra/generate/stream",
        dependencies=with_key,
        openapi_extra=body_of(GenerateBody, answers=(EVENTS,)),
    )
    async def stream(request: Request) -> EventStream:
        """Continue a text as server-sent events.

        Each event is `{"token": text, "finish_reason": null}`; the last one says why the text ended. A
        client that leaves ends the generation.
        """
        wanted, origin = await read_request(request)
        return EventStream(_pieces(service, wanted, origin))

    @router.post("/request", dependencies=with_key, openapi_extra=body_of(BasicBody))
    async def basic(request: Request) -> JsonReply:
        """Continue a text, in the oldest form.

        As `/api/v1/generate`, but for the fields `text` and `max` and for the answer:
        `{"data": {"seqs": [text]}}`.
        """
        body = await read_model(request, BasicBody, limit)
        wanted = to_request(body.model_copy(update={"prompt": body.text, "max_length": body.max}))
        origin = origin_of(request, body.genkey)
        replies = await unless_gone(request.receive, service.generate(wanted, origin=origin))
        return JsonReply(convert.basic_reply(replies[0]))

    @router.post("/api/extra/generate/check", dependencies=with_key, openapi_extra=which)
    async def check(request: Request) -> JsonReply:
        """The text that a generation has made so far.

        Also after its end, for clients that lost their connection; empty where there was none.
        """
        return JsonReply(convert.check_reply(await service.said_so_far(await read_origin(request))))

    @router.get("/api/extra/generate/check", dependencies=with_key)
    async def check_keyless(request: Request) -> JsonReply:
        """The text of the caller's generation without a genkey."""
        return JsonReply(convert.check_reply(await service.said_so_far(origin_of(request))))

    @router.post("/api/extra/last_logprobs", dependencies=with_key, openapi_extra=which)
    async def last_logprobs(request: Request) -> JsonReply:
        """The token probabilities of a generation.

        Null unless the generation asked for them with `logprobs`.
        """
        return JsonReply(convert.logprobs_reply(await service.said_so_far(await read_origin(request))))

    @router.get("/api/extra/last_logprobs", dependencies=with_key)
    async def last_logprobs_keyless(request: Request) -> JsonReply:
        """The token probabilities of the caller's generation without a genkey."""
        return JsonReply(convert.logprobs_reply(await service.said_so_far(origin_of(request))))

    @router.post("/api/extra/abort", dependencies=with_key, openapi_extra=which)
    async def abort(request: Request) -> JsonReply:
        """End a generation.

        It answers with the text so far. `success` and `done` are words: "true" where there was one.
        """
        return JsonReply(convert.abort_reply(await service.abort(await read_origin(request))))

    add_token_routes(router, service, settings, guard, planner)
    add_info_routes(router, service, settings, guard, story)
    add_save_routes(router, settings, guard, saves)
    add_media_routes(router)
    return router


async def _pieces(
    service: GenerationService, wanted: GenerationRequest, origin: Origin
) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.stream(wanted, origin=origin)) as events:
        async for event in events:
            piece = convert.from_event(event)
            yield named_event(piece) if piece is not None else b""
