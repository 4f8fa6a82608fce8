"""What the key hides, and that it is asked for first."""

from collections.abc import Iterator

import pytest

from server.settings import Settings
from tests.server.conftest import KEY
from tests.server.live import LiveServer, serving_alone
from tests.server.test_auth import RAW_KEY
from tests.support.gguf_files import write_llama

NAME = "unmistakable"


@pytest.fixture(scope="module")
def named_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a key, whose model has a name and a template that are found nowhere else."""
    path = write_llama(
        tmp_path_factory.mktemp("models") / f"{NAME}.gguf",
        context_length=512,
        chat_template=f"{{{{ '{NAME}' }}}}",
    )
    settings = Settings(model=path, contextsize=512, threads=1, password=KEY)  # type: ignore[arg-type]
    with serving_alone(settings) as server:
        yield server


def endpoints(server: LiveServer) -> list[tuple[str, str]]:
    """All endpoints by method and path."""
    paths = server.get("/openapi.json").json["paths"]
    return [(method.upper(), path) for path, operations in paths.items() for method in operations]


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/api/tags", "/api/ps", "/props", "/api/v1/model"])
@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_the_key_shows_the_name(named_server: LiveServer, path: str, header: str) -> None:
    assert "protected-model" in named_server.get(path).body.decode()
    key = f"bearer {RAW_KEY}" if header == "Authorization" else RAW_KEY
    assert NAME in named_server.ask("GET", path, headers={header: key}).body.decode()


def test_no_endpoint_shows_it_without(named_server: LiveServer) -> None:
    asked = endpoints(named_server)
    assert len(asked) > 40
    for method, path in asked:
        answer = named_server.ask(
            method, path.replace("{response_id}", "x"), {} if method == "POST" else None
        )
        assert NAME not in answer.body.decode(), path


def test_the_key_is_asked_for_before_the_body(named_server: LiveServer) -> None:
    """Whatever needs no key reads no body, whatever needs one looks at the key first."""
    for method, path in endpoints(named_server):
        if method == "POST":
            answer = named_server.ask(method, path, b"{x")
            assert b"parsing" not in answer.body, path
            assert answer.status in (200, 401, 503), path
