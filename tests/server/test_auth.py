import pytest

from tests.server.conftest import KEY
from tests.server.live import LiveServer

PROTECTED = [
    ("POST", "/api/v1/generate"),
    ("POST", "/api/latest/generate"),
    ("POST", "/x/api/extra/generate/stream/"),
    ("POST", "/api/extra/generate/check"),
    ("GET", "/api/extra/generate/check"),
    ("POST", "/api/extra/abort"),
    ("POST", "/api/extra/tokencount"),
    ("POST", "/v1/completions"),
    ("POST", "/completions"),
    ("POST", "/v1/chat/completions"),
]
OPEN = ["/api/extra/version", "/api/extra/perf", "/v1/models", "/api/v1/info/version", "/sdapi/v1/sd-models"]
RAW_KEY = KEY.encode().decode("latin-1")
"""The key's UTF-8 bytes as a header carries them."""


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_without_the_key(locked_server: LiveServer, method: str, path: str) -> None:
    answer = locked_server.ask(method, path, b"{x" if method == "POST" else None)
    assert answer.status == 401, "the key is asked for before the body is read"
    assert answer.json["detail"] == {
        "error": "Unauthorized",
        "msg": "Authentication key is missing or invalid.",
        "type": "unauthorized",
    }
    assert answer.json["error"]["message"]
    assert answer.header("access-control-allow-origin") == "*"


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_with_the_key(locked_server: LiveServer, method: str, path: str) -> None:
    headers = {"authorization": f"Bearer  {RAW_KEY} "}
    assert locked_server.ask(method, path, b"{x" if method == "POST" else None, headers).status != 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer x", "bearer " + RAW_KEY, RAW_KEY, "Basic " + RAW_KEY, "Bearer sésame"],
)
def test_wrong_keys(locked_server: LiveServer, header: str) -> None:
    assert locked_server.post("/api/extra/abort", {}, Authorization=header).status == 401


@pytest.mark.parametrize("path", OPEN)
def test_what_is_open(locked_server: LiveServer, path: str) -> None:
    assert locked_server.get(path).status == 200


def test_the_name_is_for_those_with_the_key(locked_server: LiveServer) -> None:
    assert locked_server.get("/api/v1/model").json == {"result": "koboldcpp/protected-model"}
    answer = locked_server.get("/api/v1/model", Authorization="Bearer " + RAW_KEY)
    assert answer.json == {"result": "koboldcpp/tiny"}
    assert locked_server.get("/api/extra/version").json["protected"] is True


def test_without_a_password_the_header_means_nothing(server: LiveServer) -> None:
    assert server.post("/api/extra/abort", {}, Authorization="Bearer undefined").status == 200
