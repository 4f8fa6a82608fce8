"""The endpoints of the Anthropic dialect. They decide nothing: `convert` and `answer` do."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.auth import KeyGuard
from server.chat.planner import ChatPlan, ChatPlanner, counting_request
from server.dialects.anthropic import convert
from server.dialects.anthropic.answer import Answer, Event
from server.dialects.anthropic.errors import AnthropicErrorBody, AnthropicRoute
from server.dialects.anthropic.schemas import NOT_YET, ConversationBody, MessagesBody
from server.logs import UnsupportedLog
from server.service import GenerationService, Origin
from server.settings import Settings
from server.wire.batches import whole, written
from server.wire.body import read_model
from server.wire.disconnect import unless_gone
from server.wire.endpoint import EVENTS, JSON, body_of, failures_of
from server.wire.names import model_name
from server.wire.origin import origin_of
from server.wire.replies import JsonReply
from server.wire.sampler_fields import LEFT_OUT, asked_in_vain
from server.wire.sse import EventStream, typed_event


def anthropic_routes(
    service: GenerationService, settings: Settings, guard: KeyGuard, log: UnsupportedLog, planner: ChatPlanner
) -> APIRouter:
    """All routes of the dialect."""
    router = APIRouter(
        route_class=AnthropicRoute, tags=["Anthropic"], responses=failures_of(AnthropicErrorBody)
    )
    with_key = [Depends(guard.require_any)]

    @router.post(
        "/v1/messages",
        dependencies=with_key,
        openapi_extra=body_of(MessagesBody, answers=(JSON, EVENTS)),
    )
    async def messages(request: Request) -> Response:
        """Answer a conversation.

        The reply is blocks of text, thinking and calls of tools. With `stream` it comes as server-sent
        events, from `message_start` to `message_stop`.
        """
        body = await read_model(request, MessagesBody, settings.largest_body)
        log.tell(asked_in_vain(body, NOT_YET))
        log.tell_each(asked_in_vain(body, LEFT_OUT))
        answer_id = f"msg_{secrets.token_hex(12)}"
        base = convert.base_request(body, answer_id)
        plan = await planner.plan(convert.chat_call(body, log.tell), base, service.render_chat)
        answer = Answer(
            id=answer_id,
            model=model_name(service.info),
            thinking=convert.shows_thinking(body),
            stops=base.stop if plan.request.stop == base.stop else (),
        )
        origin = origin_of(request, body.genkey)
        events = _events(service, plan, origin, answer)
        if body.stream:
            return EventStream(written(events, typed_event))
        return JsonReply(await unless_gone(request.receive, whole(events, answer.whole)))

    @router.post("/v1/messages/count_tokens", dependencies=with_key, openapi_extra=body_of(ConversationBody))
    async def count_tokens(request: Request) -> JsonReply:
        """How many tokens a conversation takes."""
        body = await read_model(request, ConversationBody, settings.largest_body)
        plan = await planner.plan(convert.chat_call(body, log.tell), counting_request(), service.render_chat)
        ids = await service.count(plan.text, special=True)
        return JsonReply({"input_tokens": len(ids)})

    return router


async def _events(
    service: GenerationService, plan: ChatPlan, origin: Origin, answer: Answer
) -> AsyncGenerator[list[Event], None]:
    """The events of the answer, the first ones when the engine has taken the request."""
    reader = plan.reader()
    prompt = await service.count(plan.text, special=True)
    context = service.info.context_length
    room = context - plan.request.reply_room(context)
    async with aclosing(service.stream(plan.request, origin=origin)) as news:
        await anext(news)
        yield answer.opening(min(len(prompt), room))
        async for event in news:
            yield [told for delta in reader.push(event) for told in answer.events(delta, event.finish)]
