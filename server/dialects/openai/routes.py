"""The endpoints of the OpenAI dialect. They decide nothing: `convert` and `answer` do."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from engine.types import GenerationRequest
from server.auth import KeyGuard
from server.dialects.openai import convert
from server.dialects.openai.answer import Answer
from server.dialects.openai.schemas import (
    CHAT_NOT_YET,
    COMPLETION_NOT_YET,
    ChatBody,
    CompletionBody,
    SharedBody,
)
from server.logs import OnceLog
from server.service import GenerationService, Origin, numbered
from server.settings import Settings
from server.wire.body import read_model
from server.wire.disconnect import unless_gone
from server.wire.replies import JsonReply
from server.wire.sampler_fields import asked_in_vain
from server.wire.sse import DONE, EventStream, plain_event


def openai_routes(service: GenerationService, settings: Settings, guard: KeyGuard, log: OnceLog) -> APIRouter:
    """All routes of the dialect."""
    router = APIRouter()
    with_key = [Depends(guard.require)]
    started = int(time.time())

    @router.get("/v1/models")
    async def models(request: Request) -> JsonReply:
        return JsonReply(convert.models_reply(service.info, started))

    @router.post("/v1/completions", dependencies=with_key)
    async def completions(request: Request) -> Response:
        body = await read_model(request, CompletionBody, settings.maxrequestsize)
        log.tell(asked_in_vain(body, COMPLETION_NOT_YET))
        answer_id = f"cmpl-{secrets.token_hex(12)}"
        wanted = convert.completion_requests(body, answer_id, settings.defaultgenamt)
        echoes = [await _text(service, prompt) for prompt in body.prompt] if body.echo else []
        return await answer(request, body, answer_id, wanted, echoes)

    @router.post("/v1/chat/completions", dependencies=with_key)
    async def chat_completions(request: Request) -> Response:
        body = await read_model(request, ChatBody, settings.maxrequestsize)
        log.tell(asked_in_vain(body, CHAT_NOT_YET))
        answer_id = f"chatcmpl-{secrets.token_hex(12)}"
        wanted = convert.chat_request(body, answer_id, settings.defaultgenamt)
        return await answer(request, body, answer_id, [wanted], [])

    async def answer(
        request: Request,
        body: SharedBody,
        answer_id: str,
        wanted: list[GenerationRequest],
        echoes: list[str],
    ) -> Response:
        requests = tuple(choice for one in wanted for choice in numbered(one, body.n))
        frame = Answer(
            id=answer_id,
            model=convert.model_name(service.info),
            created=int(time.time()),
            chat=isinstance(body, ChatBody),
            indexes={one.request_id: index for index, one in enumerate(requests)},
            choices=body.n,
            echoes=tuple(echo for echo in echoes for _ in range(body.n)),
            include_usage=body.stream_options.include_usage,
        )
        origin = Origin(request.client.host if request.client is not None else "", body.genkey)
        if body.stream:
            return EventStream(_pieces(service, requests, origin, frame))
        replies = await unless_gone(request.receive, service.generate(*requests, origin=origin))
        return JsonReply(frame.whole(replies))

    return router


async def _pieces(
    service: GenerationService, requests: tuple[GenerationRequest, ...], origin: Origin, frame: Answer
) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.stream(*requests, origin=origin)) as events:
        await anext(events)  # the engine has taken the requests
        yield b"".join(plain_event(chunk) for chunk in frame.opening())
        async for event in events:
            yield b"".join(plain_event(chunk) for chunk in frame.chunks(event))
        yield b"".join(plain_event(chunk) for chunk in frame.closing()) + DONE


async def _text(service: GenerationService, prompt: str | tuple[int, ...]) -> str:
    return prompt if isinstance(prompt, str) else await service.decode(list(prompt))
