"""The description of the whole API at `/openapi.json`, made from the models that read the requests.

Each route says of itself what it takes, what it answers and whether it wants the key; nothing here knows a
dialect but for the meaning of its tag.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from inspect import get_annotations
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.params import Depends
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from server.auth import KeyGuard
from server.wire.endpoint import EVENTS, EXTENSION, JSON, LINES, ErrorBody, Exchange, failures_of
from server.wire.lenient import WireModel
from server.wire.replies import to_json

Document = dict[str, Any]

TAGS = {
    "KoboldAI": "KoboldCpp's own API: generation, tokens, settings and saves.",
    "OpenAI": "OpenAI's API: completions, chat completions, responses and embeddings.",
    "Anthropic": "Anthropic's Messages API.",
    "Ollama": "Ollama's API: generate, chat, embeddings, and what clients ask about models.",
    "NKAT": "What only this server has: theta, and the state of the engine.",
    "Absent models": "What clients ask of models that draw, see, hear or speak: none of them is loaded.",
}
"""What the groups of endpoints are; an endpoint is of one group, its route's last tag."""

ABOUT = (
    "One loaded model, in the words of several APIs. Numbers may be sent as text, a field that is null "
    "counts as absent, and unknown fields are ignored. Every path is also found below any prefix."
)

SECURITY_SCHEMES: Document = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same key, as Anthropic's clients send it.",
    },
}

ANSWERS: dict[str, Document] = {
    JSON: {},
    EVENTS: {
        "type": "object",
        "description": "One server-sent event of the stream.",
        "properties": {
            "event": {"type": "string", "description": "The event's name, where events have names."},
            "data": {"type": "string", "description": "A JSON object as text; `[DONE]` ends some streams."},
        },
        "required": ["data"],
    },
    LINES: {"type": "object", "description": "One line of the stream."},
}
"""The schema of an answer, or of one part of a stream, by its media type."""

ERRORS: Document = {
    str(status): {
        "description": said["description"],
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}},
    }
    for status, said in failures_of(ErrorBody).items()
}
"""The errors of a route whose router names none: those of KoboldAI's and OpenAI's dialects."""


def add_description(app: FastAPI, version: str) -> None:
    """Serve the description of `app`, whose routes are complete, at `/openapi.json`.

    It is made when it is first asked for: that takes a tenth of a second, which every start would spend. As
    text it is kept: to write it takes milliseconds, and anybody may ask.
    """
    text: bytes | None = None

    async def openapi(request: Request) -> Response:
        nonlocal text
        if text is None:
            document = await asyncio.to_thread(describe, app, version)
            text = to_json(document).encode("ascii")
        return Response(text, media_type=JSON)

    app.router.add_route("/openapi.json", openapi, methods=["GET"])


def describe(app: FastAPI, version: str) -> Document:
    """The OpenAPI document, version 3.1."""
    contexts = list(_described(app))
    document = get_openapi(
        title=app.title,
        version=version,
        description=ABOUT,
        routes=contexts,
        tags=[{"name": name, "description": meaning} for name, meaning in TAGS.items()],
    )
    models: set[type[WireModel]] = set()
    for context in contexts:
        exchange = (context.openapi_extra or {}).get(EXTENSION, Exchange())
        if exchange.body is not None:
            models.add(exchange.body)
        for method in context.methods or ():
            operation = document["paths"][context.path_format][method.lower()]
            operation.pop(EXTENSION, None)
            _say(operation, context, exchange)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(_schemas(models))
    components["securitySchemes"] = SECURITY_SCHEMES
    return document


def _described(app: FastAPI) -> Iterator[RouteContext]:
    """The routes that the document tells of."""
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute) and context.include_in_schema:
            yield context


def _say(operation: Document, context: RouteContext, exchange: Exchange) -> None:
    """Complete what FastAPI knows of the endpoint.

    The first paragraph of the function's docstring is the summary, the others are the description. Where
    there is no more to say, the summary is both.
    """
    first, _, rest = operation.get("description", "").partition("\n\n")
    if context.summary is None:
        operation["summary"], operation["description"] = " ".join(first.split()).removesuffix("."), rest
    operation["description"] = operation.get("description") or f"{operation['summary']}."
    answer = {
        "description": "The answer.",
        "content": {media: {"schema": ANSWERS[media]} for media in exchange.answers},
    }
    operation["tags"] = context.tags[-1:]
    operation["responses"] = ERRORS | operation["responses"] | {"200": answer}
    if exchange.body is not None:
        schema = {"$ref": _reference(_prefix(exchange.body)).format(model=exchange.body.__name__)}
        operation["requestBody"] = {
            "required": exchange.required,
            "content": {media: {"schema": schema} for media in exchange.sent},
        }
    if wanted := _security(context.dependencies):
        operation["security"] = wanted


def _security(dependencies: Iterable[Depends]) -> list[dict[str, list[str]]]:
    """The ways to send the key, any of which will do; none where no key is wanted.

    On a server without a key the headers are not looked at, and the first way is to send none.
    """
    for dependency in dependencies:
        guard = getattr(dependency.dependency, "__self__", None)
        if isinstance(guard, KeyGuard):
            ways = ["bearer", "x-api-key"] if dependency.dependency == guard.require_any else ["bearer"]
            keyless: list[dict[str, list[str]]] = [] if guard.protected else [{}]
            return keyless + [{way: []} for way in ways]
    return []


def _schemas(models: Iterable[type[WireModel]]) -> Document:
    """The schemas of all models and of what is inside them, by `dialect.Name`."""
    by_prefix: defaultdict[str, list[type[WireModel]]] = defaultdict(list)
    for model in sorted(models, key=lambda model: (model.__module__, model.__name__)):
        by_prefix[_prefix(model)].append(model)
    schemas: Document = {}
    for prefix, group in by_prefix.items():
        _, found = models_json_schema(
            [(model, "validation") for model in group], ref_template=_reference(prefix)
        )
        for model in group:
            _put_own_first(model, found["$defs"][model.__name__])
        schemas |= {f"{prefix}.{name}": schema for name, schema in found["$defs"].items()}
    return schemas


def _put_own_first(model: type[WireModel], schema: Document) -> None:
    """Order the fields as readers want them: the endpoint's own before those that many endpoints have."""
    fields = schema.get("properties", {})
    own = [name for base in model.__mro__ for name in get_annotations(base)]
    schema["properties"] = {name: fields[name] for name in dict.fromkeys((*own, *fields)) if name in fields}


def _reference(prefix: str) -> str:
    return f"#/components/schemas/{prefix}.{{model}}"


def _prefix(model: type[WireModel]) -> str:
    """The package of a model: dialects have models of the same name."""
    return model.__module__.split(".")[-2]
