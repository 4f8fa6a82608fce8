"""The endpoints of the OpenAI dialect. They decide nothing: `convert` and the answers do."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from engine.errors import failure
from engine.types import GenerationRequest, Progress
from server.auth import KeyGuard
from server.chat.adapters import Adapter
from server.chat.message import Delta, Ending
from server.chat.planner import ChatPlanner
from server.chat.turn import TurnReader, collect
from server.dialects.openai import convert
from server.dialects.openai.answer import CompletionAnswer, Head
from server.dialects.openai.chat_answer import ChatAnswer
from server.dialects.openai.embeddings import add_embedding_routes
from server.dialects.openai.schemas import (
    CHAT_LEFT_OUT,
    CHAT_NOT_YET,
    COMPLETION_LEFT_OUT,
    COMPLETION_NOT_YET,
    ChatBody,
    CompletionBody,
    SharedBody,
)
from server.logs import UnsupportedLog
from server.service import GenerationService, Origin, numbered
from server.settings import Settings
from server.wire.body import read_model
from server.wire.disconnect import unless_gone
from server.wire.endpoint import EVENTS, JSON, ErrorBody, body_of, failures_of
from server.wire.names import model_name
from server.wire.origin import origin_of
from server.wire.replies import JsonReply
from server.wire.sampler_fields import asked_in_vain
from server.wire.shown import shown_info
from server.wire.sse import DONE, EventStream, plain_event
from server.wire.tools import read_tools


def openai_routes(
    service: GenerationService,
    settings: Settings,
    guard: KeyGuard,
    log: UnsupportedLog,
    planner: ChatPlanner,
    adapter: Adapter,
) -> APIRouter:
    """All routes of the dialect. `adapter`: the tags that placeholders stand for."""
    router = APIRouter(tags=["OpenAI"], responses=failures_of(ErrorBody))
    with_key = [Depends(guard.require)]
    started = int(time.time())

    @router.get("/v1/models")
    async def models(request: Request) -> JsonReply:
        """The loaded model."""
        info = shown_info(service.info, guard, request)
        anthropic = "anthropic-version" in request.headers
        return JsonReply(convert.models_reply(info, started, anthropic=anthropic))

    @router.get("/v1/models/{model_id:path}", dependencies=[Depends(guard.require_any)])
    async def model(model_id: str) -> JsonReply:
        """The loaded model, by its name."""
        return JsonReply(convert.model_reply(service.info, started, model_id))

    @router.post(
        "/v1/completions",
        dependencies=with_key,
        openapi_extra=body_of(CompletionBody, answers=(JSON, EVENTS)),
    )
    async def completions(request: Request) -> Response:
        """Continue one text or several.

        `n` choices for each prompt. With `stream` they come as server-sent events, mixed, each with its
        `index`; the last event is `[DONE]`.
        """
        body = await read_model(request, CompletionBody, settings.largest_body)
        log.tell(asked_in_vain(body, COMPLETION_NOT_YET))
        log.tell_each(asked_in_vain(body, COMPLETION_LEFT_OUT))
        answer_id = f"cmpl-{secrets.token_hex(12)}"
        wanted = convert.completion_requests(body, answer_id, settings.defaultgenamt, adapter)
        echoes = [await _text(service, prompt) for prompt in body.prompt] if body.echo else []
        requests = tuple(choice for one in wanted for choice in numbered(one, body.n))
        answer = CompletionAnswer(
            head(body, answer_id),
            indexes={one.request_id: index for index, one in enumerate(requests)},
            echoes=tuple(echo for echo in echoes for _ in range(body.n)),
            logprobs=body.logprobs is not None,
        )
        if body.stream:
            return EventStream(_completion_pieces(service, requests, origin_of(request, body.genkey), answer))
        replies = await unless_gone(
            request.receive, service.generate(*requests, origin=origin_of(request, body.genkey))
        )
        return JsonReply(answer.whole(replies))

    @router.post(
        "/v1/chat/completions",
        dependencies=with_key,
        openapi_extra=body_of(ChatBody, answers=(JSON, EVENTS)),
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a chat.

        The prompt is written by the model's own template, or by an adapter. With `tools` the reply may be
        calls of them; with `stream` it comes as server-sent events, the last of which is `[DONE]`.
        """
        body = await read_model(request, ChatBody, settings.largest_body)
        log.tell(asked_in_vain(body, CHAT_NOT_YET))
        log.tell_each(asked_in_vain(body, CHAT_LEFT_OUT))
        offer = read_tools(body.tools, log.tell)
        answer_id = f"chatcmpl-{secrets.token_hex(12)}"
        plan = await planner.plan(
            convert.chat_call(body, offer, log.tell),
            convert.chat_request(body, answer_id, settings.defaultgenamt),
            service.render_chat,
        )
        requests = numbered(plan.request, body.n)
        readers = {one.request_id: plan.reader() for one in requests}
        answer = ChatAnswer(head(body, answer_id), logprobs=bool(body.logprobs), offer=offer)
        pieces = _deltas(service, requests, origin_of(request, body.genkey), readers)
        if body.stream:
            return EventStream(_chat_pieces(pieces, answer))
        return JsonReply(await unless_gone(request.receive, _whole_chat(pieces, answer)))

    def head(body: SharedBody, answer_id: str) -> Head:
        return Head(
            id=answer_id,
            model=model_name(service.info),
            created=int(time.time()),
            choices=body.n,
            include_usage=body.stream_options.include_usage,
        )

    add_embedding_routes(router, service, settings, guard)
    return router


async def _completion_pieces(
    service: GenerationService,
    requests: tuple[GenerationRequest, ...],
    origin: Origin,
    answer: CompletionAnswer,
) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.stream(*requests, origin=origin)) as events:
        await anext(events)  # the engine has taken the requests
        yield b"".join(plain_event(chunk) for chunk in answer.opening())
        async for event in events:
            yield b"".join(plain_event(chunk) for chunk in answer.chunks(event))
        yield b"".join(plain_event(chunk) for chunk in answer.closing()) + DONE


async def _deltas(
    service: GenerationService,
    requests: tuple[GenerationRequest, ...],
    origin: Origin,
    readers: dict[str, TurnReader],
) -> AsyncGenerator[list[tuple[int, Delta | Progress]], None]:
    """More of the messages, by choice; first nothing, which says that the engine has the requests."""
    places = {one.request_id: index for index, one in enumerate(requests)}
    async with aclosing(service.stream(*requests, origin=origin)) as events:
        async for event in events:
            index, reader = places[event.request_id], readers[event.request_id]
            progress: list[Progress] = [] if event.progress is None else [event.progress]
            yield [(index, delta) for delta in (*progress, *reader.push(event))]


async def _chat_pieces(
    pieces: AsyncGenerator[list[tuple[int, Delta | Progress]], None], answer: ChatAnswer
) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        await anext(pieces)
        yield b"".join(plain_event(chunk) for chunk in answer.opening())
        async for deltas in pieces:
            chunks = [chunk for index, delta in deltas for chunk in answer.chunks(index, delta)]
            yield b"".join(plain_event(chunk) for chunk in chunks)
        yield b"".join(plain_event(chunk) for chunk in answer.closing()) + DONE


async def _whole_chat(
    pieces: AsyncGenerator[list[tuple[int, Delta | Progress]], None], answer: ChatAnswer
) -> object:
    said: dict[int, list[Delta]] = {index: [] for index in range(answer.head.choices)}
    async with aclosing(pieces):
        async for deltas in pieces:
            for index, delta in deltas:
                assert not isinstance(delta, Progress), "streams alone tell it"
                said[index].append(delta)
    messages = [collect(deltas) for deltas in said.values()]
    for message in messages:
        if message.ending is Ending.ERROR:
            raise failure(message.error, refused=message.refused)
    return answer.whole(messages)


async def _text(service: GenerationService, prompt: str | tuple[int, ...]) -> str:
    return prompt if isinstance(prompt, str) else await service.decode(list(prompt))
