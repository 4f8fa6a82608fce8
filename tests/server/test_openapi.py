"""The description of the API: valid, complete, and in the words that clients send."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from server.openapi import TAGS
from tests.server.live import LiveServer

METHODS = {"get", "post"}
Document = dict[str, Any]
Place = tuple[str, Document]


@pytest.fixture(scope="module")
def document(open_server: LiveServer) -> Document:
    answer = open_server.get("/openapi.json")
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    found: Document = answer.json
    return found


@pytest.fixture(scope="module")
def locked_document(locked_server: LiveServer) -> Document:
    found: Document = locked_server.get("/openapi.json").json
    return found


def operations(document: Document) -> Iterator[Place]:
    for path, item in document["paths"].items():
        assert item.keys() <= METHODS
        for method, operation in item.items():
            yield f"{method} {path}", operation


def properties(document: Document) -> Iterator[tuple[str, Document, bool]]:
    """Every field of every schema: where it is, what is said of it, and whether it is required."""
    for name, schema in document["components"]["schemas"].items():
        required = schema.get("required", [])
        for field, said in schema.get("properties", {}).items():
            yield f"{name}.{field}", said, field in required


def kinds(document: Document, schema: Document) -> Iterator[Document]:
    """The schema, or all that it may be instead: references and alternatives followed, lists not."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    alternatives = schema.get("anyOf", [])
    if not alternatives:
        yield schema
    for alternative in alternatives:
        yield from kinds(document, alternative)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_it_is_openapi_3_1(document: Document) -> None:
    assert document["openapi"].startswith("3.1.")
    errors = [error.message for error in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(document)]
    assert errors == []


def test_every_schema_is_one(document: Document) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        # Pydantic writes out the module where two models of a package have one name.
        assert "__" not in name
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema)


def keywords(schema: Any) -> Iterator[str]:
    """The words of a schema and of those inside it; names of fields and values are none."""
    for word, value in schema.items():
        yield word
        match word:
            case "properties":
                for field in value.values():
                    yield from keywords(field)
            case "items" | "additionalProperties" if isinstance(value, dict):
                yield from keywords(value)
            case "anyOf":
                for alternative in value:
                    yield from keywords(alternative)


def test_schemas_use_words_of_json_schema_alone(document: Document) -> None:
    used = {word for schema in document["components"]["schemas"].values() for word in keywords(schema)}
    known = {
        *("$ref", "type", "title", "description", "default", "examples", "enum", "const", "anyOf"),
        *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("minimum", "maximum", "minLength", "maxLength", "pattern", "maxProperties"),
    }
    assert used <= known


def test_every_reference_leads_somewhere(document: Document) -> None:
    found = set(references(document["paths"])) | set(references(document["components"]))
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert found == known


def test_it_tells_of_all_endpoints(open_server: LiveServer, document: Document) -> None:
    paths = document["paths"]
    for path in (
        *("/api/v1/generate", "/api/extra/generate/stream", "/api/extra/tokencount", "/api/extra/abort"),
        *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"),
        *("/api/generate", "/api/nkat/theta", "/sdapi/v1/txt2img"),
    ):
        assert "post" in paths[path]
    for path, item in paths.items():
        if "get" in item and "{" not in path:
            assert open_server.get(path).status in (200, 501), path


def test_every_operation_is_described(document: Document) -> None:
    groups = [tag["name"] for tag in document["tags"]]
    assert groups == list(TAGS)
    names = set()
    for place, operation in operations(document):
        assert len(operation["tags"]) == 1, place
        assert operation["summary"], place
        assert not operation["summary"].endswith("."), place
        assert operation["description"], place
        names.add(operation["operationId"])
        assert not [key for key in operation if key.startswith("x-")], place
    assert len(names) == len(list(operations(document)))
    assert {tag for _, operation in operations(document) for tag in operation["tags"]} == set(groups)


def test_every_dialect_has_its_own_errors(document: Document) -> None:
    models = {"Anthropic": "AnthropicErrorBody", "Ollama": "OllamaErrorBody"}
    for place, operation in operations(document):
        name = models.get(operation["tags"][0], "ErrorBody")
        for status in ("4XX", "500", "501", "503"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{name}"}, place


@pytest.mark.parametrize(
    ("place", "answers"),
    [
        ("/api/v1/generate", {"application/json"}),
        ("/api/extra/generate/stream", {"text/event-stream"}),
        ("/v1/completions", {"application/json", "text/event-stream"}),
        ("/v1/chat/completions", {"application/json", "text/event-stream"}),
        ("/v1/responses", {"application/json", "text/event-stream"}),
        ("/v1/messages", {"application/json", "text/event-stream"}),
        ("/api/chat", {"application/json", "application/x-ndjson"}),
        ("/api/generate", {"application/json", "application/x-ndjson"}),
        ("/api/extra/tokencount", {"application/json"}),
    ],
)
def test_media_types_of_answers(document: Document, place: str, answers: set[str]) -> None:
    assert document["paths"][place]["post"]["responses"]["200"]["content"].keys() == answers


def test_bodies_have_models_of_their_dialect(document: Document) -> None:
    packages = {
        "/api/v1/generate": "kobold.",
        "/v1/completions": "openai.",
        "/v1/chat/completions": "openai.",
        "/v1/responses": "responses.",
        "/v1/messages": "anthropic.",
        "/api/chat": "ollama.",
        "/api/generate": "ollama.",
    }
    for path, package in packages.items():
        body = document["paths"][path]["post"]["requestBody"]
        reference = body["content"]["application/json"]["schema"]["$ref"]
        assert reference.startswith(f"#/components/schemas/{package}")
        assert body["required"] is True
    assert document["paths"]["/api/extra/abort"]["post"]["requestBody"]["required"] is False


@pytest.mark.parametrize(
    ("body", "first"),
    [
        ("kobold.GenerateBody", ["prompt", "memory"]),
        ("openai.ChatBody", ["messages"]),
        ("anthropic.MessagesBody", ["max_tokens", "temperature"]),
        ("kobold.SaveBody", ["title", "format", "data", "slot"]),
    ],
)
def test_an_endpoints_own_fields_come_first(document: Document, body: str, first: list[str]) -> None:
    assert list(document["components"]["schemas"][body]["properties"])[: len(first)] == first


def test_every_field_is_described(document: Document) -> None:
    assert [place for place, said, _ in properties(document) if not said.get("description")] == []


def test_every_field_has_a_default_or_is_required(document: Document) -> None:
    # Bodies of requests, whose names begin with a dialect; errors are not sent by clients.
    bodies = [
        (place, required == ("default" in said))
        for place, said, required in properties(document)
        if place.count(".") == 2
    ]
    assert [place for place, wrong in bodies if wrong] == []


def test_numbers_have_ranges_that_hold_their_defaults(document: Document) -> None:
    counts = 0
    for place, said, _ in properties(document):
        default = said.get("default")
        if isinstance(default, bool) or not isinstance(default, int | float):
            continue
        counts += 1
        assert {kind.get("type") for kind in kinds(document, said)} <= {"integer", "number", "null"}, place
        assert "minimum" in said, place
        assert said["minimum"] <= default <= said.get("maximum", float("inf")), place
    assert counts > 100


def test_defaults_are_what_clients_send(document: Document) -> None:
    schemas = document["components"]["schemas"]
    for place, said, _ in properties(document):
        default = said.get("default")
        if default is None:
            continue
        whole = {"$ref": "#/a", "a": said, "components": {"schemas": schemas}}
        assert jsonschema_rs.is_valid(whole, default), (place, default)


@pytest.mark.parametrize("body", ["kobold.GenerateBody", "openai.CompletionBody", "ollama.Options"])
def test_fields_whose_wire_form_is_not_pythons(document: Document, body: str) -> None:
    fields = document["components"]["schemas"][body]["properties"]
    order = fields["sampler_order"]
    assert order["default"] == [6, 0, 1, 3, 4, 2, 5]
    assert order["items"] == {"type": "integer", "minimum": 0, "maximum": 6}
    biases = fields["logit_bias"]
    assert (biases["type"], biases["default"]) == ("object", {})
    assert biases["additionalProperties"] == {"type": "number", "minimum": -100, "maximum": 100}
    assert (fields["custom_token_bans"]["type"], fields["custom_token_bans"]["default"]) == ("string", "")
    for name in ("dry_sequence_breakers", "stop_sequence", "banned_tokens"):
        assert [kind["type"] for kind in fields[name]["anyOf"]] == ["array", "string"]
        assert fields[name]["default"] == []


def test_documented_defaults_are_taken(server: LiveServer, document: Document) -> None:
    """A body that says all defaults is answered as one that says nothing."""
    fields = document["components"]["schemas"]["kobold.GenerateBody"]["properties"]
    defaults = {name: said["default"] for name, said in fields.items()}
    short = {"prompt": "hello", "max_length": 4, "temperature": 0}
    assert (
        server.post("/api/v1/generate", defaults | short).json["results"]
        == server.post("/api/v1/generate", short).json["results"]
    )


def test_the_key_is_wanted_where_the_server_wants_it(
    locked_server: LiveServer, locked_document: Document
) -> None:
    schemes = locked_document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert schemes["x-api-key"]["name"] == "x-api-key"
    for place, operation in operations(locked_document):
        method, path = place.split()
        status = locked_server.ask(method.upper(), path, None if method == "get" else {}).status
        assert (status == 401) == bool(operation.get("security")), place
        both: list[Document] = [{"bearer": []}, {"x-api-key": []}]
        if operation.get("security"):
            shared = operation["tags"] == ["Anthropic"] or path == "/v1/models/{model_id}"
            assert operation["security"] == (both if shared else both[:1]), place


def test_without_a_key_none_is_wanted(document: Document, locked_document: Document) -> None:
    locked = {place: operation.get("security") for place, operation in operations(locked_document)}
    for place, operation in operations(document):
        ways = locked[place]
        assert operation.get("security") == (None if ways is None else [{}, *ways]), place


def test_it_is_served_under_any_prefix(server: LiveServer, document: Document) -> None:
    assert server.get("/below/a/proxy/openapi.json").json == json.loads(json.dumps(document))
