from collections.abc import Callable

import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st

from server.auth import KeyGuard
from server.wire.replies import HttpError
from tests.server.conftest import KEY
from tests.server.endpoints import ENDPOINTS, FREE, FREE_POSTS, PROTECTED
from tests.server.live import Answer, LiveServer

SPELLINGS = [
    ("POST", "/api/latest/generate"),
    ("POST", "/x/api/extra/generate/stream/"),
    ("POST", "/completions"),
    ("POST", "/x/messages"),
]
"""Other names of protected endpoints."""
EVERY = [*PROTECTED, *SPELLINGS]
BOTH_HEADERS = ("/v1/messages", "/v1/messages/count_tokens", "/x/messages", "/v1/models/{model_id}")
"""Where Anthropic's clients come."""
RAW_KEY = KEY.encode().decode("latin-1")
"""The key's UTF-8 bytes as a header carries them."""


def ask(server: LiveServer, method: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    """A body that nobody can read: with it, no request gets as far as the engine."""
    return server.ask(method, path, b"{x" if method == "POST" else None, headers)


def test_every_endpoint_is_protected_or_free_for_a_reason() -> None:
    assert set(FREE) <= set(ENDPOINTS), "there is nothing of that name"
    assert len(PROTECTED) > 25


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_without_the_key(locked_server: LiveServer, method: str, path: str) -> None:
    answer = ask(locked_server, method, path)
    assert answer.status == 401, "the key is asked for before the body is read"
    assert answer.json["error"], "each dialect has its own shape"
    assert answer.header("access-control-allow-origin") == "*"
    assert "Authorization" in (answer.header("access-control-allow-headers") or "")


def test_what_is_missing_is_told_to_kobolds_clients(locked_server: LiveServer) -> None:
    answer = ask(locked_server, "POST", "/api/v1/generate")
    assert answer.json["detail"] == {
        "error": "Unauthorized",
        "msg": "Authentication key is missing or invalid.",
        "type": "unauthorized",
    }
    assert answer.json["error"]["message"]


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_with_the_key(locked_server: LiveServer, method: str, path: str) -> None:
    assert ask(locked_server, method, path, {"authorization": f"Bearer  {RAW_KEY} "}).status != 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer x", "Bearer" + RAW_KEY, RAW_KEY, "Basic " + RAW_KEY, "Bearer sésame"],
)
def test_wrong_keys(locked_server: LiveServer, header: str) -> None:
    assert locked_server.post("/api/extra/abort", {}, Authorization=header).status == 401


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_anthropics_header_is_a_key_for_its_clients_alone(
    locked_server: LiveServer, method: str, path: str
) -> None:
    answer = ask(locked_server, method, path, {"x-api-key": RAW_KEY})
    assert (answer.status == 401) == (path not in BOTH_HEADERS)


def request(*headers: tuple[str, str]) -> Request:
    """A request as it comes from the wire: names in lower case, values in bytes."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "headers": raw})


def passes(dependency: Callable[[Request], None], *headers: tuple[str, str]) -> bool:
    try:
        dependency(request(*headers))
    except HttpError as error:
        return error.status != 401
    return True


@pytest.mark.parametrize(
    ("headers", "bearer", "any_"),
    [
        ([], False, False),
        ([("authorization", f"Bearer {KEY}")], True, True),
        ([("authorization", f"bearer {KEY}")], True, True),
        ([("authorization", f"BEARER  {KEY}")], True, True),
        ([("x-api-key", KEY)], False, True),
        ([("x-api-key", f"  {KEY}\t")], False, True),
        ([("x-api-key", "wrong"), ("authorization", f"Bearer {KEY}")], True, True),
        ([("x-api-key", KEY), ("authorization", "Bearer wrong")], False, True),
        ([("x-api-key", KEY), ("authorization", "Basic x")], False, True),
        ([("x-api-key", "wrong"), ("authorization", "Bearer wrong")], False, False),
        ([("x-api-key", "")], False, False),
        ([("x-api-key", f"Bearer {KEY}")], False, False),
        ([("authorization", KEY)], False, False),
        ([("api-key", KEY)], False, False),
        ([("x-api-key", KEY[:-1])], False, False),
        ([("x-api-key", KEY + "x")], False, False),
    ],
)
def test_both_headers_count_where_both_are_taken(
    headers: list[tuple[str, str]], bearer: bool, any_: bool
) -> None:
    guard = KeyGuard(f" {KEY} ")
    assert passes(guard.require, *headers) is bearer
    assert guard.admits(request(*headers)) is bearer
    assert passes(guard.require_any, *headers) is any_


@settings(deadline=None)
@given(st.text(min_size=1).filter(str.strip), st.text())
def test_only_the_key_is_the_key(key: str, other: str) -> None:
    guard = KeyGuard(key)
    same = key.encode().strip() == other.encode().strip()
    for sent, right in ((key, True), (f" {key} ", True), (other, same), (key + "x", False), ("", False)):
        assert passes(guard.require_any, ("x-api-key", sent)) is right
        assert passes(guard.require, ("authorization", "Bearer " + sent)) is right


def test_without_a_key_everybody_passes() -> None:
    guard = KeyGuard(None)
    assert passes(guard.require_any, ("x-api-key", "undefined"))
    assert passes(guard.require_any)


@pytest.mark.parametrize(("method", "path"), FREE)
def test_what_is_free(locked_server: LiveServer, method: str, path: str) -> None:
    answer = ask(locked_server, method, path)
    assert answer.status != 401
    assert answer.status == 200 or method == "POST" or path == "/slots"
    assert answer.header("access-control-allow-origin") == "*"


def test_what_is_free_never_reaches_the_engine(locked_server: LiveServer) -> None:
    before = locked_server.worker.snapshot().requests_added
    for path in FREE_POSTS:
        assert locked_server.post(path, {}).status != 401, path
    assert locked_server.worker.snapshot().requests_added == before


def test_the_name_is_for_those_with_the_key(locked_server: LiveServer) -> None:
    assert locked_server.get("/api/v1/model").json == {"result": "koboldcpp/protected-model"}
    answer = locked_server.get("/api/v1/model", Authorization="Bearer " + RAW_KEY)
    assert answer.json == {"result": "koboldcpp/tiny"}
    assert locked_server.get("/api/extra/version").json["protected"] is True


def test_without_a_password_the_header_means_nothing(server: LiveServer) -> None:
    assert server.post("/api/extra/abort", {}, Authorization="Bearer undefined").status == 200
