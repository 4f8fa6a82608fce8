"""Headers, methods, paths and bodies, whatever the endpoint."""

import json
import logging
import threading

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.settings import Settings
from tests.server.live import PATIENCE, LiveServer, read_answer, serving

GENERATE = "/api/v1/generate"
SHORT = {"prompt": "hello", "max_length": 2}


def check_cors(answer: object) -> None:
    assert answer.header("access-control-allow-origin") == "*"  # type: ignore[attr-defined]
    assert "Authorization" in answer.header("access-control-allow-headers")  # type: ignore[attr-defined]


def test_preflight(locked_server: LiveServer) -> None:
    answer = locked_server.ask(
        "OPTIONS",
        "/any/path",
        headers={
            "Origin": "https://lite.koboldai.net",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
            "Access-Control-Request-Private-Network": "true",
        },
    )
    assert (answer.status, answer.body) == (200, b"")
    check_cors(answer)
    assert answer.header("access-control-allow-private-network") == "true"
    assert answer.header("access-control-allow-credentials") is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("POST", "/nowhere", {}, 404),
        ("POST", GENERATE, b"{x", 500),
        ("POST", GENERATE, [1], 400),
        ("POST", GENERATE, {"prompt": 5}, 422),
        ("PUT", GENERATE, {}, 501),
        ("DELETE", "/api/v1/model", None, 501),
        ("HEAD", "/nowhere", None, 200),
    ],
)
def test_every_answer_has_the_headers(
    server: LiveServer, method: str, path: str, body: object, status: int
) -> None:
    answer = server.ask(method, path, body)
    assert answer.status == status
    check_cors(answer)
    if status >= 400 and status != 404:
        assert answer.json["detail"]["msg"] == answer.json["error"]["message"]


def test_an_unforeseen_error_has_the_headers(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(server.service, "status", fail)
    answer = server.get("/api/extra/perf")
    monkeypatch.undo()
    assert answer.status == 500
    check_cors(answer)
    assert b"secret detail" not in answer.body
    assert "unforeseen error" in caplog.text


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/model",
        "/api/latest/model",
        "/some/where/api/v1/model",
        "/some/where/api/latest/model/",
        "/api/v1/model//",
        "/api/v1/model?x=1",
    ],
)
def test_spellings_of_a_path(server: LiveServer, path: str) -> None:
    assert server.get(path).json == {"result": "koboldcpp/tiny"}


def test_the_longest_path_behind_a_prefix(server: LiveServer) -> None:
    found = server.get("/some/where/api/extra/generate/check").json
    assert found["results"][0].keys() == {"text"}
    assert server.post("/x/api/extra/generate/stream/", SHORT).status == 200


@pytest.mark.parametrize("path", ["/v1/completion", "/completions", "/x/v1/completions", "/v1/completions/"])
def test_spellings_of_completions(server: LiveServer, path: str) -> None:
    assert server.post(path, {"prompt": "a", "max_tokens": 1}).json["object"] == "text_completion"


def test_spellings_of_chat(server: LiveServer) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    assert server.post("/chat/completions", body).json["object"] == "chat.completion"
    assert server.get("/models").json["data"][0]["id"] == "koboldcpp/tiny"


@pytest.mark.parametrize("start", ["/v1/models", "/models", "/some/where/v1/models", "/where/models"])
@pytest.mark.parametrize("name", ["koboldcpp/tiny", "koboldcpp%2Ftiny", "tiny"])
def test_spellings_of_one_model(server: LiveServer, start: str, name: str) -> None:
    assert server.get(f"{start}/{name}").json["id"] == "koboldcpp/tiny"


def test_spellings_of_counts(server: LiveServer) -> None:
    messages = [{"role": "user", "content": "a"}]
    assert server.post("/messages/count_tokens", {"messages": messages}).json["input_tokens"] > 0
    assert server.post("/responses/input_tokens", {"input": "a"}).json["input_tokens"] > 0


@pytest.mark.parametrize("path", ["/" * 3000, "/a" * 3000, "/%00", "/..%2f..%2fetc/passwd", "/api/v1/modelx"])
def test_odd_paths(server: LiveServer, path: str) -> None:
    assert server.get(path).status in (200, 404)


@pytest.mark.parametrize(
    "path", ["/", "/?local=1", "/nkat", "/lcpp", "/api", "/v1", "/docs", "/some/where/api"]
)
def test_the_pages_tell_nothing_of_the_model(locked_server: LiveServer, path: str) -> None:
    page = locked_server.get(path)
    assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
    check_cors(page)
    assert b"tiny" not in page.body


def test_content_type_is_not_looked_at(server: LiveServer) -> None:
    answer = server.ask("POST", GENERATE, SHORT, {"Content-Type": "text/plain;charset=UTF-8"})
    assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"max_length": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_json(server: LiveServer, body: bytes) -> None:
    answer = server.post(GENERATE, body)
    assert (answer.status, answer.json["detail"]) == (
        500,
        {"msg": "Error parsing input.", "type": "bad_input"},
    )


def test_half_characters_are_replaced(server: LiveServer) -> None:
    answer = server.post(GENERATE, b'{"prompt": "a\\ud83d", "max_length": 1}')
    assert answer.status == 200


def test_a_declared_body_that_is_too_big(server: LiveServer) -> None:
    with server.send("POST", GENERATE, headers={"Content-Length": str((32 << 20) + 1)}) as connection:
        answer = read_answer(connection)
    assert answer.status == 500
    assert answer.json["detail"]["msg"] == "Payload is too big. Max payload size is 32MB."
    check_cors(answer)


def test_a_chunked_body_that_grows_too_big(server: LiveServer, tiny_settings: Settings) -> None:
    settings = tiny_settings.model_copy(update={"maxrequestsize": 1})
    with serving(server.worker, settings) as small:
        connection = small.send("POST", GENERATE, headers={"Transfer-Encoding": "chunked"})
        with connection:
            piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            for _ in range(17):
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n")
            answer = read_answer(connection)
    assert answer.json["detail"]["msg"] == "Payload is too big. Max payload size is 1MB."


def test_a_chunked_body_without_an_end_is_not_read_for_ever(
    server: LiveServer, tiny_settings: Settings
) -> None:
    settings = tiny_settings.model_copy(update={"maxrequestsize": 1})
    with (
        serving(server.worker, settings) as small,
        small.send("POST", GENERATE, headers={"Transfer-Encoding": "chunked"}) as connection,
    ):
        for _ in range(33):  # beyond twice the limit
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        answer = read_answer(connection)
    assert answer.json["detail"]["msg"] == "Payload is too big. Max payload size is 1MB."


def test_a_chunked_body(server: LiveServer) -> None:
    body = json.dumps(SHORT).encode()
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    assert server.ask("POST", GENERATE, chunked, {"Transfer-Encoding": "chunked"}).status == 200


def test_a_large_body_within_the_limit(server: LiveServer) -> None:
    answer = server.post(GENERATE, SHORT | {"filler": "x" * (8 << 20)})
    assert answer.status == 200


class Onlooker:
    """Between the web server and the application: what passes, and when a handler reads on and ends."""

    def __init__(self) -> None:
        self.reads = 0
        self.reads_on, self.ended = threading.Event(), threading.Event()
        self.sent: list[Message] = []

    def around(self, app: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def read() -> Message:
                self.reads += 1
                if self.reads > 1:
                    self.reads_on.set()
                return await receive()

            async def write(message: Message) -> None:
                self.sent.append(message)
                await send(message)

            await app(scope, read, write)
            self.ended.set()

        return watched


@pytest.mark.parametrize("path", [GENERATE, "/v1/completions", "/v1/responses", "/v1/messages", "/api/chat"])
def test_a_client_that_leaves_while_it_sends_is_no_error(
    server: LiveServer, tiny_settings: Settings, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    onlooker = Onlooker()
    with serving(server.worker, tiny_settings, around=onlooker.around) as watched:
        with watched.send("POST", path, headers={"Content-Length": "500"}) as connection:
            connection.sendall(b"{")
            assert onlooker.reads_on.wait(PATIENCE), "the handler has the first byte and waits for the rest"
        assert onlooker.ended.wait(PATIENCE), "it has ended, and not by an exception"
    start, body = onlooker.sent
    assert (start["status"], body["body"]) == (499, b""), "which goes nowhere"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_stream_over_http_1_0(server: LiveServer) -> None:
    """As nginx asks by default: no chunks, the end of the connection is the end of the stream."""
    body = json.dumps(SHORT | {"ban_eos_token": True}).encode()
    head = f"POST /api/extra/generate/stream HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head.encode() + body)
        answer = read_answer(connection)
    assert answer.status == 200
    assert answer.header("transfer-encoding") is None
    assert answer.body.startswith(b"event: message\ndata: {")
    assert answer.body.endswith(b'"finish_reason": "length"}\n\n')


def test_one_connection_for_many_requests(server: LiveServer) -> None:
    """As SillyTavern counts tokens; also behind an error and behind a stream."""
    with httpx.Client(base_url=server.url) as client:
        used = set()
        for path, body, status in (
            ("/api/extra/tokencount", {"prompt": "hello"}, 200),
            (GENERATE, {"prompt": 5}, 422),
            ("/api/extra/generate/stream", SHORT, 200),
            (GENERATE, SHORT | {"grammar": "root ::= (("}, 400),
            (GENERATE, SHORT, 200),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code == status
            used.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(used) == 1
