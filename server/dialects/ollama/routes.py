"""The endpoints of the Ollama dialect. They decide nothing: `convert` and `answer` do."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from engine.types import Event, GenerationRequest, TokenPrompt
from server.auth import KeyGuard
from server.chat.message import Delta
from server.chat.planner import ChatPlanner
from server.dialects.ollama import convert
from server.dialects.ollama.answer import Answer, Line, RawReader
from server.dialects.ollama.embeddings import add_embedding_routes
from server.dialects.ollama.errors import OllamaErrorBody, OllamaRoute
from server.dialects.ollama.models import ModelFile, running_reply, show_reply, tags_reply, version_reply
from server.dialects.ollama.schemas import (
    GENERATE_NOT_YET,
    NOT_YET,
    OllamaChatBody,
    OllamaGenerateBody,
    OllamaShowBody,
    SharedBody,
)
from server.dialects.ollama.stream import LineStream, line
from server.logs import UnsupportedLog
from server.service import GenerationService, Origin
from server.settings import Settings
from server.wire.batches import whole, written
from server.wire.body import read_model
from server.wire.body_limits import SMALL_BODY
from server.wire.disconnect import unless_gone
from server.wire.endpoint import JSON, LINES, body_of, failures_of
from server.wire.origin import origin_of
from server.wire.replies import JsonReply
from server.wire.sampler_fields import LEFT_OUT, asked_in_vain
from server.wire.shown import shown_info


class Reader(Protocol):
    """Reads the events of one generation."""

    def push(self, event: Event) -> list[Delta]: ...  # noqa: D102


def ollama_routes(
    service: GenerationService, settings: Settings, guard: KeyGuard, log: UnsupportedLog, planner: ChatPlanner
) -> APIRouter:
    """All routes of the dialect."""
    router = APIRouter(route_class=OllamaRoute, tags=["Ollama"], responses=failures_of(OllamaErrorBody))
    with_key = [Depends(guard.require)]

    @router.post(
        "/api/chat",
        dependencies=with_key,
        openapi_extra=body_of(OllamaChatBody, answers=(JSON, LINES)),
    )
    async def chat(request: Request) -> Response:
        """Answer a chat.

        The reply comes line by line, each a JSON object, the last with `done`; without `stream` as one
        object.
        """
        started = time.perf_counter_ns()
        body = await read_model(request, OllamaChatBody, settings.largest_body)
        answer = Answer(service.info.name, True, convert.shows_thinking(body), started)
        if not body.messages:
            return JsonReply(answer.nothing(unloaded=convert.unloads(body)))
        base = convert.base_request(body, _request_id(), settings.defaultgenamt)
        plan = await planner.plan(convert.chat_call(body, log.tell), base, service.render_chat)
        return await answered(request, body, plan.request, plan.reader(), answer)

    @router.post(
        "/api/generate",
        dependencies=with_key,
        openapi_extra=body_of(OllamaGenerateBody, answers=(JSON, LINES)),
    )
    async def generate(request: Request) -> Response:
        """Answer a prompt, or continue it as it is.

        The reply comes line by line, each a JSON object, the last with `done` and `context`; without `stream`
        as one object. `raw` continues the prompt without the model's template.
        """
        started = time.perf_counter_ns()
        body = await read_model(request, OllamaGenerateBody, settings.largest_body)
        log.tell(asked_in_vain(body, GENERATE_NOT_YET))
        answer = Answer(service.info.name, False, convert.shows_thinking(body), started)
        if not body.prompt:
            return JsonReply(answer.nothing(unloaded=convert.unloads(body)))
        if body.raw:
            wanted = convert.raw_request(body, _request_id(), settings.defaultgenamt)
            return await answered(request, body, wanted, RawReader(), answer)
        base = convert.base_request(body, _request_id(), settings.defaultgenamt)
        plan = await planner.plan(convert.generate_call(body), base, service.render_chat)
        first = not body.context
        text = convert.prompt_text(plan.request, service.info.bos_token, first=first)
        ids = await service.count(text, special=first)
        answer.context = [*body.context, *ids]
        wanted = replace(plan.request, prompt=TokenPrompt(tuple(answer.context)))
        return await answered(request, body, wanted, plan.reader(), answer)

    @router.get("/api/tags")
    async def tags(request: Request) -> JsonReply:
        """The models that there are."""
        info = shown_info(service.info, guard, request)
        return JsonReply(tags_reply(info, ModelFile.look(settings.model)))

    @router.get("/api/ps")
    async def running(request: Request) -> JsonReply:
        """The models that are loaded."""
        info = shown_info(service.info, guard, request)
        return JsonReply(running_reply(info, ModelFile.look(settings.model)))

    @router.get("/api/version")
    async def version() -> JsonReply:
        """The version of the API."""
        return JsonReply(version_reply())

    @router.post("/api/show", dependencies=with_key, openapi_extra=body_of(OllamaShowBody))
    async def show(request: Request) -> JsonReply:
        """All about the model."""
        await read_model(request, OllamaShowBody, SMALL_BODY)
        return JsonReply(show_reply(service.info, ModelFile.look(settings.model)))

    async def answered(
        request: Request, body: SharedBody, wanted: GenerationRequest, reader: Reader, answer: Answer
    ) -> Response:
        log.tell(asked_in_vain(body.options, NOT_YET))
        log.tell_each(asked_in_vain(body.options, LEFT_OUT))
        origin = origin_of(request, body.options.genkey)
        lines = _lines(service, wanted, origin, reader, answer)
        if body.stream:
            return LineStream(written(lines, line))
        return JsonReply(await unless_gone(request.receive, whole(lines, answer.whole)))

    add_embedding_routes(router, service, settings, guard)
    return router


def _request_id() -> str:
    return f"ollama-{secrets.token_hex(8)}"


async def _lines(
    service: GenerationService, wanted: GenerationRequest, origin: Origin, reader: Reader, answer: Answer
) -> AsyncGenerator[list[Line], None]:
    """The lines of the answer; first none, which says that the engine has taken the request."""
    async with aclosing(service.stream(wanted, origin=origin)) as news:
        await anext(news)
        answer.taken = time.perf_counter_ns()
        yield []
        async for event in news:
            answer.made(event.token_ids)
            yield [told for delta in reader.push(event) for told in answer.lines(delta)]
