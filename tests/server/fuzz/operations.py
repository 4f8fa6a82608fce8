"""The endpoints under test, read from the API's own description: a new one is fuzzed from its first day."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from engine.worker import EngineWorker
from server.app import create_app
from server.client import EngineClient
from server.openapi import describe
from server.service import GenerationService
from server.settings import Settings
from tests.server.dialects.scripted import ScriptedWorker

Document = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """An endpoint of the description."""

    method: str
    path: str
    tag: str
    schema: Mapping[str, Any]
    """The body's; empty for an endpoint that reads none, or reads it unseen."""
    answers: frozenset[str]
    """Media types of its answers."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@cache
def document() -> Document:
    """The description of a server without a model of its own: that changes no endpoint."""
    worker = cast(EngineWorker, ScriptedWorker())
    service = GenerationService(EngineClient(worker), 1)
    return describe(create_app(service, Settings()), "1")


def operations(method: str) -> list[Operation]:
    """All endpoints of that method, upper case."""
    return list(_operations(document(), method))


def _operations(document: Document, method: str) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for name, operation in item.items():
            if name == method.lower():
                content = operation.get("requestBody", {}).get("content", {})
                schema = content.get("application/json", {}).get("schema", {})
                answers = frozenset(operation["responses"]["200"]["content"])
                yield Operation(method, path, operation["tags"][-1], schema, answers)


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, or the one that it refers to."""
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found
