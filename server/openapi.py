"""The description of the whole API at `/openapi.json`, made from the models that read the requests."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from server.wire.endpoint import BODY
from server.wire.lenient import WireModel
from server.wire.replies import JsonReply

_REFERENCE = "#/components/schemas/{model}"

_RESPONSES = {
    "200": {"description": "The answer; a stream where the request asks for one."},
    "4XX": {"description": "What is wrong with the request, in `detail.msg` and `error.message`."},
    "503": {"description": "Too many requests are waiting, or what is asked for is not loaded."},
}


def add_description(app: FastAPI, version: str) -> None:
    """Serve the description of `app`, whose routes are complete, at `/openapi.json`."""
    document = describe(app, version)

    async def openapi(request: Request) -> JsonReply:
        return JsonReply(document)

    app.router.add_route("/openapi.json", openapi, methods=["GET"])


def describe(app: FastAPI, version: str) -> dict[str, Any]:
    """The OpenAPI document, version 3.1."""
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    document = get_openapi(title=app.title, version=version, routes=routes)
    models: dict[str, type[WireModel]] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"] = _RESPONSES
            model = operation.pop(BODY, None)
            if model is not None:
                models[model.__name__] = model
                schema = {"$ref": _REFERENCE.format(model=model.__name__)}
                operation["requestBody"] = {
                    "required": False,
                    "content": {"application/json": {"schema": schema}},
                }
    _, schemas = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template=_REFERENCE
    )
    document["components"] = {
        "schemas": schemas.get("$defs", {}),
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    return document
