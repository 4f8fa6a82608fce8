"""The endpoints of the Responses API. They decide nothing: `convert` and `answer` do."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.auth import KeyGuard
from server.chat.message import Ended
from server.chat.planner import ChatPlan, ChatPlanner, counting_request
from server.dialects.responses import convert
from server.dialects.responses.answer import Answer
from server.dialects.responses.items import Message, to_messages
from server.dialects.responses.output import Event
from server.dialects.responses.schemas import NOT_YET, ConversationBody, ResponsesBody
from server.dialects.responses.store import ResponseStore, StoredResponse
from server.logs import UnsupportedLog
from server.service import GenerationService, Origin
from server.settings import Settings
from server.wire.batches import whole, written
from server.wire.body import read_model
from server.wire.disconnect import unless_gone
from server.wire.endpoint import EVENTS, JSON, ErrorBody, body_of, failures_of
from server.wire.names import model_name
from server.wire.origin import origin_of
from server.wire.replies import JsonReply
from server.wire.sampler_fields import LEFT_OUT, asked_in_vain
from server.wire.sse import EventStream, typed_event
from server.wire.tools import read_tools


def responses_routes(
    service: GenerationService, settings: Settings, guard: KeyGuard, log: UnsupportedLog, planner: ChatPlanner
) -> APIRouter:
    """All routes of the dialect, around one store."""
    router = APIRouter(tags=["OpenAI"], responses=failures_of(ErrorBody))
    with_key = [Depends(guard.require)]
    store = ResponseStore()

    @router.post(
        "/v1/responses",
        dependencies=with_key,
        openapi_extra=body_of(ResponsesBody, answers=(JSON, EVENTS)),
    )
    async def responses(request: Request) -> Response:
        """Answer a question, or the next turn of a conversation.

        With `previous_response_id` the conversation of an earlier response goes on. With `stream` the reply
        comes as typed server-sent events, from `response.created` to `response.completed`.
        """
        body = await read_model(request, ResponsesBody, settings.largest_body)
        log.tell(asked_in_vain(body, NOT_YET))
        log.tell_each(asked_in_vain(body, LEFT_OUT))
        offer = read_tools(body.tools, log.tell)
        conversation = to_messages(body.input, offer, log.tell, earlier(body.previous_response_id))
        answer = Answer(
            number=secrets.token_hex(16),
            model=model_name(service.info),
            created=int(time.time()),
            echo=convert.echo(body),
            offer=offer,
            sealed=convert.SEALED_THOUGHTS in body.include,
        )
        base = convert.base_request(body, answer.id, settings.defaultgenamt)
        call = convert.chat_call(body, conversation, offer, log.tell)
        plan = await planner.plan(call, base, service.render_chat)
        origin = origin_of(request, body.genkey)
        events = _events(service, plan, origin, answer)
        if body.store:
            events = _stored(events, answer, conversation, store)
        if body.stream:
            return EventStream(written(events, typed_event))
        return JsonReply(await unless_gone(request.receive, whole(events, answer.whole)))

    @router.post("/v1/responses/input_tokens", dependencies=with_key, openapi_extra=body_of(ConversationBody))
    async def input_tokens(request: Request) -> JsonReply:
        """How many tokens a conversation takes."""
        body = await read_model(request, ConversationBody, settings.largest_body)
        offer = read_tools(body.tools, log.tell)
        conversation = to_messages(body.input, offer, log.tell, earlier(body.previous_response_id))
        call = convert.chat_call(body, conversation, offer, log.tell)
        plan = await planner.plan(call, counting_request(), service.render_chat)
        ids = await service.count(plan.text, special=True)
        return JsonReply({"object": "response.input_tokens", "input_tokens": len(ids)})

    @router.get("/v1/responses/{response_id}", dependencies=with_key)
    async def kept(response_id: str) -> JsonReply:
        """A response that was made a while ago."""
        return JsonReply(store.get(response_id).reply)

    def earlier(response_id: str | None) -> tuple[Message, ...]:
        return () if response_id is None else store.get(response_id).conversation

    return router


async def _events(
    service: GenerationService, plan: ChatPlan, origin: Origin, answer: Answer
) -> AsyncGenerator[list[Event], None]:
    """The events of the response, the first ones when the engine has taken the request."""
    reader = plan.reader()
    async with aclosing(service.stream(plan.request, origin=origin)) as news:
        await anext(news)
        yield answer.opening()
        async for event in news:
            for delta in reader.push(event):
                if isinstance(delta, Ended):
                    thoughts = await service.count(answer.thoughts, special=False)
                    yield answer.end(delta, len(thoughts), int(time.time()))
                else:
                    yield answer.events(delta)


async def _stored(
    events: AsyncGenerator[list[Event], None],
    answer: Answer,
    conversation: tuple[Message, ...],
    store: ResponseStore,
) -> AsyncGenerator[list[Event], None]:
    """The same events; before the last of them are told, the response is kept."""
    async with aclosing(events):
        async for told in events:
            if answer.ended_well:
                store.put(StoredResponse(answer.whole(), (*conversation, answer.message)))
            yield told
