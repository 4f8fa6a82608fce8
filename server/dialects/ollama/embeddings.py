"""Ollama's embeddings, the present form and the older one."""

import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BeforeValidator, Field

from server.auth import KeyGuard
from server.service import GenerationService, Vector
from server.settings import Settings
from server.wire.body import read_model
from server.wire.disconnect import unless_gone
from server.wire.endpoint import body_of
from server.wire.lenient import Positive, Truth, WireModel
from server.wire.origin import origin_of
from server.wire.replies import JsonReply
from server.wire.sampler_fields import field

INPUTS_LIMIT = 2048


def _inputs(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class EmbedBody(WireModel):
    """Body of `/api/embed`."""

    input: Annotated[
        tuple[str, ...],
        BeforeValidator(_inputs),
        Field(max_length=INPUTS_LIMIT, description="a text, or a list of texts"),
    ] = ()
    truncate: Truth = field(True, "cut inputs longer than the context instead of refusing them")
    dimensions: Positive | None = field(
        None, "numbers of each vector, the first ones, of length 1 again; unset: the model's width"
    )

    model: Any = field(None, "ignored: the loaded model answers under any name")
    options: Any = field(None, "ignored: no option changes a vector")
    keep_alive: Any = field(None, "ignored: the model stays loaded")


class EmbeddingsBody(WireModel):
    """Body of `/api/embeddings`, the older form."""

    prompt: str = field("", "the text")

    model: Any = field(None, "ignored: the loaded model answers under any name")
    options: Any = field(None, "ignored: no option changes a vector")
    keep_alive: Any = field(None, "ignored: the model stays loaded")


EMBED_IGNORED = {
    "model": "one model is loaded, and it answers under any name",
    "options": "no option changes a vector",
    "keep_alive": "the model stays loaded",
}

EMBEDDINGS_IGNORED = {name: EMBED_IGNORED[name] for name in ("model", "options", "keep_alive")}


def add_embedding_routes(
    router: APIRouter, service: GenerationService, settings: Settings, guard: KeyGuard
) -> None:
    """Add them to the dialect's routes."""
    with_key = [Depends(guard.require)]

    async def vectors(
        request: Request, texts: tuple[str, ...], *, truncate: bool = True, dimensions: int | None = None
    ) -> list[Vector]:
        wanted = service.embed(
            texts,
            f"embd-{secrets.token_hex(12)}",
            pooling="mean",
            truncate=truncate,
            dimensions=dimensions,
            origin=origin_of(request),
        )
        return await unless_gone(request.receive, wanted)

    @router.post("/api/embed", dependencies=with_key, openapi_extra=body_of(EmbedBody))
    async def embed(request: Request) -> JsonReply:
        """The vector of each input: the mean of the model's hidden states, of length 1."""
        started = time.perf_counter_ns()
        body = await read_model(request, EmbedBody, settings.largest_body)
        found = await vectors(request, body.input, truncate=body.truncate, dimensions=body.dimensions)
        return JsonReply(
            {
                "model": service.info.name,
                "embeddings": [vector.values for vector in found],
                "total_duration": time.perf_counter_ns() - started,
                "load_duration": 0,
                "prompt_eval_count": sum(vector.tokens for vector in found),
            }
        )

    @router.post("/api/embeddings", dependencies=with_key, openapi_extra=body_of(EmbeddingsBody))
    async def embeddings(request: Request) -> JsonReply:
        """The vector of one text."""
        body = await read_model(request, EmbeddingsBody, settings.largest_body)
        found = await vectors(request, (body.prompt,))
        return JsonReply({"embedding": found[0].values})
