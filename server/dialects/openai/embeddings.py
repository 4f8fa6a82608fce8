"""Embeddings: vectors of texts from the loaded model's hidden states."""

import base64
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BeforeValidator, Field

from server.auth import KeyGuard
from server.dialects.openai.schemas import TokenId, as_list
from server.service import GenerationService, Vector
from server.settings import Settings
from server.wire.body import read_model
from server.wire.disconnect import unless_gone
from server.wire.endpoint import body_of
from server.wire.lenient import Positive, Truth, WireModel
from server.wire.names import model_name
from server.wire.origin import origin_of
from server.wire.replies import JsonReply
from server.wire.sampler_fields import field

INPUTS_LIMIT = 2048
"""Most inputs of one request, as OpenAI's."""


class EmbeddingBody(WireModel):
    """Body of `/v1/embeddings`."""

    input: Annotated[
        tuple[str | tuple[TokenId, ...], ...],
        BeforeValidator(as_list),
        Field(min_length=1, max_length=INPUTS_LIMIT, description="text, token ids, or a list of either"),
    ]
    encoding_format: Literal["float", "base64"] = field("float", "numbers, or their float32 bytes in base64")
    pooling: Literal["mean", "last"] = field("mean", "mean of all tokens' hidden states, or the last token's")
    truncate: Truth = field(True, "cut inputs longer than the context instead of refusing them")
    dimensions: Positive | None = field(
        None, "numbers of each vector, the first ones, of length 1 again; unset: the model's width"
    )

    model: Any = field(None, "ignored: the loaded model answers under any name")
    user: Any = field(None, "ignored")


class ExtraEmbeddingBody(EmbeddingBody):
    """Body of `/api/extra/embeddings`, which SillyTavern sends without inputs to learn the model's name."""

    input: Annotated[
        tuple[str | tuple[TokenId, ...], ...],
        BeforeValidator(as_list),
        Field(max_length=INPUTS_LIMIT, description="text, token ids, or a list of either; may be empty"),
    ]


IGNORED = {
    "model": "one model is loaded, and it answers under any name",
    "user": "clients are told apart by their address",
}


def add_embedding_routes(
    router: APIRouter, service: GenerationService, settings: Settings, guard: KeyGuard
) -> None:
    """Add them to the dialect's routes."""
    with_key = [Depends(guard.require)]

    @router.post("/v1/embeddings", dependencies=with_key, openapi_extra=body_of(EmbeddingBody))
    async def embeddings(request: Request) -> JsonReply:
        """The vector of each input, of length 1."""
        return await answer(request, await read_model(request, EmbeddingBody, settings.largest_body))

    @router.post("/api/extra/embeddings", dependencies=with_key, openapi_extra=body_of(ExtraEmbeddingBody))
    async def extra_embeddings(request: Request) -> JsonReply:
        """The vector of each input, of length 1; none for no input."""
        return await answer(request, await read_model(request, ExtraEmbeddingBody, settings.largest_body))

    async def answer(request: Request, body: EmbeddingBody) -> JsonReply:
        wanted = service.embed(
            body.input,
            f"embd-{secrets.token_hex(12)}",
            pooling=body.pooling,
            truncate=body.truncate,
            dimensions=body.dimensions,
            origin=origin_of(request),
        )
        vectors = await unless_gone(request.receive, wanted)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(vector.tokens for vector in vectors)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JsonReply({"object": "list", "data": data, "model": model_name(service.info), "usage": usage})


def _written(vector: Vector, encoding: str) -> list[float] | str:
    return base64.b64encode(vector.raw).decode("ascii") if encoding == "base64" else vector.values
