"""The API's description, rendered from a small document with everything that such documents have."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.chromium import PHONE
from tests.browser.conftest import Opener
from tests.server.live import LiveServer

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "A small API", "version": "1"},
    "tags": [{"name": "Kobold", "description": "KoboldAI's own words."}, {"name": "unused"}],
    "security": [{"key": []}],
    "paths": {
        "/api/v1/generate": {
            "post": {
                "tags": ["Kobold"],
                "summary": "Continue a text",
                "description": "Uses `prompt`.\n\nNever <b>markup</b>.",
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}}
                },
                "responses": {
                    "200": {
                        "description": "The text.",
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "object",
                                    "properties": {"results": {"type": "array", "items": {"type": "string"}}},
                                }
                            }
                        },
                    }
                },
            }
        },
        "/v1/models/{model}": {
            "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "tags": ["OpenAI"],
                "summary": "One model",
                "security": [],
                "parameters": [{"$ref": "#/components/parameters/verbose"}],
                "responses": {},
            },
            "delete": {"summary": "Forget it", "deprecated": True, "security": [{"key": []}, {}]},
        },
        "/api/extra/tokencount": {
            "put": {
                "tags": ["Kobold"],
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "properties": {
                                    "special": {"type": "boolean", "default": True},
                                    "prompt": {"type": "string", "default": ""},
                                }
                            }
                        }
                    }
                },
            }
        },
        "/v1/audio": {
            "post": {
                "tags": ["OpenAI"],
                "requestBody": {
                    "content": {
                        "multipart/form-data": {
                            "schema": {
                                "type": "object",
                                "required": ["file"],
                                "properties": {"file": {"type": "string", "format": "binary"}},
                            }
                        }
                    }
                },
            }
        },
    },
    "components": {
        "parameters": {
            "verbose": {
                "name": "verbose",
                "in": "query",
                "required": True,
                "description": "Say more.",
                "schema": {"type": "boolean", "default": False},
            }
        },
        "schemas": {
            "Body": {
                "allOf": [{"$ref": "#/components/schemas/Samplers"}],
                "type": "object",
                "required": ["prompt", "messages"],
                "properties": {
                    "prompt": {
                        "type": "string",
                        "examples": ["It's late"],
                        "description": "Text to go on with.",
                    },
                    "messages": {
                        "type": "array",
                        "maxItems": 9,
                        "items": {"$ref": "#/components/schemas/Message"},
                    },
                    "format": {"enum": ["json", "text", None]},
                    "stop": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
                    "bias": {"type": "object", "additionalProperties": {"type": "number"}},
                    "tree": {"$ref": "#/components/schemas/Tree", "default": {"leaves": []}},
                    "lost": {"$ref": "#/components/schemas/Nowhere"},
                    "loop": {"$ref": "#/components/schemas/Loop"},
                },
            },
            "Samplers": {
                "type": "object",
                "properties": {
                    "temperature": {"type": "number", "default": 0.7, "minimum": 0, "maximum": 5},
                    "top_k": {
                        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}],
                        "default": None,
                        "description": "So many tokens.",
                    },
                    "seed": {"type": ["integer", "null"], "exclusiveMinimum": -2},
                    "name": {"type": "string", "minLength": 1, "maxLength": 8, "pattern": "^a"},
                },
            },
            "Message": {
                "type": "object",
                "required": ["role"],
                "properties": {"role": {"const": "user"}, "content": {"type": "string"}},
            },
            "Tree": {
                "type": "object",
                "properties": {"leaves": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
            },
            "Loop": {"$ref": "#/components/schemas/Loop"},
        },
    },
}


@pytest.fixture
def docs(server: LiveServer, opened: Opener) -> Page:
    return show(opened, server, DOCUMENT)


def show(opened: Opener, server: LiveServer, document: Any, fragment: str = "", **options: Any) -> Page:
    watched = opened(server, **options)
    body = document if isinstance(document, str) else json.dumps(document)
    watched.page.route(
        "**/openapi.json", lambda route: route.fulfill(body=body, content_type="application/json")
    )
    page = watched.open(f"/docs{fragment}")
    expect(page.locator("#found, #error:visible").filter(has_text=" ").first).to_be_visible()
    assert watched.faults == []
    assert watched.hosts == {urlsplit(server.url).netloc}
    return page


def endpoint(page: Page, identity: str) -> Locator:
    """The fold of one endpoint, opened."""
    fold = page.locator(f"[id='{identity}']")
    fold.locator("summary").click()
    expect(fold.locator("pre")).to_be_visible()
    return fold


def rows(fold: Locator, table: int = 0) -> dict[str, list[str]]:
    """Cells of a table after the first, by the first."""
    found = fold.locator("table").nth(table).locator("tbody tr").all()
    cells = [row.locator("td").all_inner_texts() for row in found]
    return {first.strip(): rest for first, *rest in cells}


def test_endpoints_stand_in_groups(docs: Page) -> None:
    assert docs.locator("#contents a").all_inner_texts() == ["Kobold", "OpenAI", "Other"]
    assert docs.locator("#reference h2").all_inner_texts() == ["Kobold", "OpenAI", "Other"]
    expect(docs.locator("#reference")).to_contain_text("KoboldAI's own words.")
    assert docs.locator("details .path").all_inner_texts() == [
        "/api/v1/generate",
        "/api/extra/tokencount",
        "/v1/models/{model}",
        "/v1/audio",
        "/v1/models/{model}",
    ]
    expect(docs.locator("#found")).to_have_text("5 endpoints")
    # Who asks for a key: the document's rule, an exception, and an endpoint that may do without.
    locked = [
        fold.inner_text() for fold in docs.locator("summary").all() if "key" in fold.inner_text().split()
    ]
    assert [text.split()[1] for text in locked] == ["/api/v1/generate", "/api/extra/tokencount", "/v1/audio"]
    expect(docs.locator("summary", has_text="deprecated")).to_contain_text("DELETE")


def test_fields_of_a_body(docs: Page) -> None:
    fold = endpoint(docs, "post-api-v1-generate")
    assert rows(fold) == {
        "temperature": ["number", "0.7", "0 to 5", ""],
        "top_k": ["integer or null", "null", "at least 0", "So many tokens."],
        "seed": ["integer or null", "", "more than -2", ""],
        "name": ["string", "", "1 to 8 characters, matches ^a", ""],
        "prompt": ["string", "required", "", "Text to go on with."],
        "messages": ["list of object", "required", "at most 9 items", ""],
        "messages[].role": ['"user"', "required", "", ""],
        "messages[].content": ["string", "", "", ""],
        "format": ['"json" | "text" | null', "", "", ""],
        "stop": ["string or list of string", "", "", ""],
        "bias": ["object of number", "", "", ""],
        "tree": ["object", "", "", ""],
        "tree.leaves": ["list of object", "", "", ""],
        "lost": ["any", "", "", ""],
        "loop": ["any", "", "", ""],
    }
    assert rows(fold, 1) == {"results": ["list of string", "", "", ""]}
    expect(fold.locator("p").first).to_have_text("Uses prompt.")
    expect(fold).to_contain_text("Never <b>markup</b>.")


def test_examples_can_be_pasted(server: LiveServer, docs: Page) -> None:
    assert endpoint(docs, "post-api-v1-generate").locator("pre").inner_text().split(" \\\n  ") == [
        f"curl '{server.url}/api/v1/generate'",
        "-H 'Authorization: Bearer KEY'",
        "-H 'Content-Type: application/json'",
        """-d '{ "prompt": "It'\\''s late", "messages": [ { "role": "user" } ] }'""",
    ]
    get = endpoint(docs, "get-v1-models-model-").locator("pre")
    expect(get).to_have_text(f"curl '{server.url}/v1/models/{{model}}?verbose=…'")
    put = endpoint(docs, "put-api-extra-tokencount").locator("pre")
    expect(put).to_contain_text("curl -X PUT")
    expect(put).to_contain_text("""-d '{ "prompt": "text" }'""")
    delete = endpoint(docs, "delete-v1-models-model-").locator("pre")
    expect(delete).to_have_text(f"curl -X DELETE '{server.url}/v1/models/{{model}}'")
    expect(endpoint(docs, "post-v1-audio").locator("pre")).to_contain_text("-F 'file=@FILE'")


def test_parameters(docs: Page) -> None:
    assert rows(endpoint(docs, "get-v1-models-model-")) == {
        "model path": ["string", "required", "", ""],
        "verbose query": ["boolean", "required", "", "Say more."],
    }


def test_search(docs: Page) -> None:
    search = docs.get_by_label("Search endpoints and fields")
    for text, found in (
        ("temperature", ["/api/v1/generate"]),
        ("SO many", ["/api/v1/generate"]),
        ("v1 openai", ["/v1/models/{model}", "/v1/audio"]),
        ("delete", ["/v1/models/{model}"]),
        ("no such thing", []),
    ):
        search.fill(text)
        assert [path.inner_text() for path in docs.locator(".path").all() if path.is_visible()] == found
        expect(docs.locator("#found")).to_have_text(f"{len(found)} of 5 endpoints")
    assert not docs.locator("#reference h2").first.is_visible()
    search.fill("")
    expect(docs.locator("#found")).to_have_text("5 endpoints")


def test_an_endpoint_has_an_address(server: LiveServer, opened: Opener) -> None:
    page = show(opened, server, DOCUMENT, "#post-v1-audio")
    expect(page.locator("#post-v1-audio pre")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(server: LiveServer, opened: Opener, scheme: str) -> None:
    page = show(opened, server, DOCUMENT, "#post-api-v1-generate", viewport=PHONE, color_scheme=scheme)
    expect(page.locator("#post-api-v1-generate pre")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for control in page.locator("summary, nav a, input").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 40


@pytest.mark.parametrize("document", ["{", "[]", '{"paths": {"/x": {"get": 5}}}', "null"])
def test_a_bad_document_is_one_line(server: LiveServer, opened: Opener, document: str) -> None:
    page = show(opened, server, document)
    if document == "[]":
        expect(page.locator("#found")).to_have_text("0 endpoints")
    elif "paths" in document:
        expect(page.locator("#found")).to_have_text("1 endpoint")
    else:
        expect(page.get_by_role("alert")).to_contain_text("cannot be read")
