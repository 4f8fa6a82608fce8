"""Vectors over HTTP, against the engine's own."""

from __future__ import annotations

import base64
import math
from array import array
from typing import Any

import ollama
import openai
import pytest

from server.dialects.ollama.embeddings import EMBED_IGNORED, EMBEDDINGS_IGNORED, EmbedBody, EmbeddingsBody
from server.dialects.openai.embeddings import IGNORED, EmbeddingBody
from tests.server.dialects.fields import check_lists
from tests.server.live import LiveServer

TEXTS = ["The cat sat on the mat.", "A kitten sits on a rug.", "Interest rates rose by half a percent."]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_the_official_client_gets_unit_vectors_in_order(demo_server: LiveServer) -> None:
    with openai.OpenAI(base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0) as client:
        reply = client.embeddings.create(model="any", input=TEXTS, encoding_format="float")
        assert [one.index for one in reply.data] == [0, 1, 2]
        vectors = [one.embedding for one in reply.data]
        assert all(cosine(vector, vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
        assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
        # the client asks for base64 by itself
        coded = client.embeddings.create(model="any", input=TEXTS[0])
        assert coded.data[0].embedding == pytest.approx(vectors[0], abs=1e-7)
        tokens = demo_server.worker.encode(TEXTS[0])
        assert coded.usage.prompt_tokens == len(tokens)
        by_ids = client.embeddings.create(model="any", input=tokens, encoding_format="float")
        assert by_ids.data[0].embedding == vectors[0]


def test_other_paths_and_forms(server: LiveServer) -> None:
    mean = server.post("/v1/embeddings", {"input": "hello world"}).json["data"][0]["embedding"]
    assert (
        server.post("/api/extra/embeddings", {"input": ["hello world"]}).json["data"][0]["embedding"] == mean
    )
    last = server.post("/v1/embeddings", {"input": "hello world", "pooling": "last"}).json
    assert last["data"][0]["embedding"] != mean
    coded = server.post("/embeddings", {"input": "hello world", "encoding_format": "base64"}).json
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert list(array("f", raw)) == mean
    with ollama.Client(host=server.url) as client:
        assert list(client.embed(model="any", input="hello world").embeddings[0]) == mean
        assert list(client.embeddings(model="any", prompt="hello world").embedding) == mean


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": []},
        {"input": [[]]},
        {"input": 5},
        {"input": [[-1]]},
        {"input": [[10**9]]},
        {"input": "a", "pooling": "max"},
    ],
)
def test_what_cannot_be_embedded_is_told(server: LiveServer, body: dict[str, Any]) -> None:
    answer = server.post("/v1/embeddings", body)
    assert answer.status in (400, 422)
    assert answer.json["error"]["message"] == answer.json["detail"]["msg"]


def test_a_long_input_is_cut_or_refused(server: LiveServer) -> None:
    text = "hello " * 5000
    cut = server.post("/v1/embeddings", {"input": text})
    assert cut.json["usage"]["prompt_tokens"] == 2048
    refused = server.post("/v1/embeddings", {"input": text, "truncate": False})
    assert refused.status == 400
    assert "2048" in refused.json["detail"]["msg"]


def test_vectors_may_be_shortened(server: LiveServer) -> None:
    whole = server.post("/v1/embeddings", {"input": "hello world"}).json["data"][0]["embedding"]
    body = {"input": "hello world", "dimensions": 8}
    cut = server.post("/v1/embeddings", body).json["data"][0]["embedding"]
    assert len(cut) == 8
    assert cosine(cut, cut) == pytest.approx(1, abs=1e-5)
    assert cosine(cut, whole[:8]) == pytest.approx(math.hypot(*whole[:8]), abs=1e-5)
    assert server.post("/api/embed", body).json["embeddings"] == [cut]
    for path in ("/v1/embeddings", "/api/embed"):
        refused = server.post(path, body | {"dimensions": len(whole) + 1})
        assert refused.status == 400
        assert f"have {len(whole)} dimensions" in refused.json["detail"]["msg"]


def test_vector_storage_asks_for_the_models_name_first(server: LiveServer) -> None:
    first = server.post("/api/extra/embeddings", {"input": []})
    assert first.status == 200
    assert (first.json["data"], first.json["model"]) == ([], server.get("/v1/models").json["data"][0]["id"])
    texts = {"input": ["hello", "world"]}
    assert len(server.post("/api/extra/embeddings", texts).json["data"]) == 2
    assert server.post("/api/extra/embeddings", {}).status == 422


@pytest.mark.parametrize(
    ("model", "mapped", "ignored"),
    [
        (EmbeddingBody, {"input", "encoding_format", "pooling", "truncate", "dimensions"}, IGNORED),
        (EmbedBody, {"input", "truncate", "dimensions"}, EMBED_IGNORED),
        (EmbeddingsBody, {"prompt"}, EMBEDDINGS_IGNORED),
    ],
)
def test_every_field_is_mapped_or_listed(model: Any, mapped: set[str], ignored: dict[str, str]) -> None:
    check_lists(model, mapped, ignored)
