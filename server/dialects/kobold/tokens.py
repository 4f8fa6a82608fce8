"""Text to token ids and back, and schemas to grammars."""

from fastapi import APIRouter, Depends, Request

from engine.errors import ModelFileError, RequestError
from engine.types import QUOTE, ChatPrompt
from server.auth import KeyGuard
from server.chat.planner import ChatPlanner
from server.dialects.kobold.schemas import DetokenizeBody, SchemaBody, TokenCountBody
from server.service import GenerationService
from server.settings import Settings
from server.wire.body import read_model, read_object
from server.wire.body_limits import SCHEMA_BODY, TEXT_BODY
from server.wire.endpoint import Responses, body_of, failure
from server.wire.gbnf import schema_to_gbnf
from server.wire.replies import HttpError, JsonReply


def add_token_routes(
    router: APIRouter,
    service: GenerationService,
    settings: Settings,
    guard: KeyGuard,
    planner: ChatPlanner,
) -> None:
    """Add them to the dialect's routes. None waits for a generation."""
    with_key = [Depends(guard.require)]
    uncounted: Responses = {400: failure({"value": -1})}
    undecoded: Responses = {400: failure({"result": "", "success": False})}
    limit = min(TEXT_BODY, settings.largest_body)

    @router.post(
        "/api/extra/tokencount",
        dependencies=with_key,
        openapi_extra=body_of(TokenCountBody),
        responses=uncounted,
    )
    @router.post(
        "/api/extra/tokenize",
        dependencies=with_key,
        openapi_extra=body_of(TokenCountBody),
        responses=uncounted,
    )
    async def token_count(request: Request) -> JsonReply:
        """The tokens of a text, or of a chat in the model's own template.

        `value` is their number, `ids` are their ids, `prompt` is the text that was counted.
        """
        try:
            body = await read_model(request, TokenCountBody, limit)
            text = body.prompt
            if body.messages and not text:
                messages = await planner.quoted(tuple(body.messages))
                text = await service.render_chat(ChatPrompt(messages))
        except (HttpError, RequestError, ModelFileError):
            return JsonReply({"value": -1}, 400)
        ids = await service.count(text, special=body.special)
        return JsonReply({"value": len(ids), "ids": ids, "prompt": text.replace(QUOTE, "")})

    @router.post(
        "/api/extra/detokenize",
        dependencies=with_key,
        openapi_extra=body_of(DetokenizeBody),
        responses=undecoded,
    )
    async def detokenize(request: Request) -> JsonReply:
        """The text of token ids."""
        try:
            body = await read_model(request, DetokenizeBody, limit)
            text = await service.decode(body.ids, render_special=body.special)
        except (HttpError, RequestError):
            return JsonReply({"result": "", "success": False}, 400)
        return JsonReply({"result": text, "success": True})

    @router.post("/api/extra/json_to_grammar", dependencies=with_key, openapi_extra=body_of(SchemaBody))
    async def json_to_grammar(request: Request) -> JsonReply:
        """The GBNF grammar of a JSON schema.

        For the field `grammar` of generation requests. The body may also be the bare schema.
        """
        content = await read_object(request, SCHEMA_BODY)
        schema = content.get("schema", content)
        try:
            if not isinstance(schema, dict):
                raise RequestError("the schema must be a JSON object")
            grammar = await request.app.state.body_pool.run(schema_to_gbnf, schema)
        except RequestError:
            return JsonReply({"result": "", "success": False})
        return JsonReply({"result": grammar, "success": True})
