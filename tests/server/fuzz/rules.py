"""What holds for every answer, whatever was asked."""

import json
from typing import Any

from tests.server.fuzz.exchange import Heard
from tests.server.fuzz.operations import Operation

PARSE_ERRORS = ("Error parsing input.", "Payload is too big.")
"""KoboldCpp says 500 for them, and so does this server."""

VALUE_ONLY = {
    "/api/extra/tokencount": {"value"},
    "/api/extra/tokenize": {"value"},
    "/api/extra/detokenize": {"result", "success"},
}
"""Endpoints whose errors have no message: KoboldCpp's own shape."""


def check(operation: Operation, heard: Heard) -> None:
    """Fails where the answer breaks a rule: status, headers, content type, the shape of an error."""
    assert heard.headers.get("access-control-allow-origin") == "*"
    if heard.status == 200:
        _check_answer(heard)
        return
    assert heard.media_type == "application/json"
    assert 400 <= heard.status < 500 or heard.status in (500, 501, 503), heard.status
    message = _message(operation, heard)
    if heard.status == 500:
        assert message.startswith(PARSE_ERRORS), message
    assert "\n" not in message
    assert len(message) < 2000


def _check_answer(heard: Heard) -> None:
    match heard.media_type:
        case "application/json":
            assert heard.json is not None
        case "application/x-ndjson":
            assert [json.loads(line) for line in heard.body.splitlines()]
        case "text/event-stream":
            assert heard.body.isascii()
            assert heard.body.endswith(b"\n\n")
            for event in heard.body.decode("ascii").split("\n\n")[:-1]:
                _check_event(event)
        case kind:
            raise AssertionError(f"an answer of type {kind!r}")


def _check_event(event: str) -> None:
    *names, data = event.split("\n")
    assert len(names) <= 1
    assert all(name.startswith("event: ") for name in names)
    assert data.startswith("data: ")
    if data != "data: [DONE]":
        json.loads(data.removeprefix("data: "))


def _message(operation: Operation, heard: Heard) -> str:
    """The error's message, out of the shape that the dialect's clients read."""
    body = heard.json
    if operation.path in VALUE_ONLY and "detail" not in body:
        assert heard.status == 400
        assert body.keys() == VALUE_ONLY[operation.path]
        return ""
    error, detail = body["error"], body["detail"]
    assert isinstance(detail["msg"], str)
    assert isinstance(detail["type"], str)
    message = _told(operation, body, error)
    assert message == detail["msg"]
    return message


def _told(operation: Operation, body: dict[str, Any], error: Any) -> str:
    if operation.tag == "Ollama":
        message = error
    else:
        message = error["message"]
        assert isinstance(error["type"], str)
    if operation.tag == "Anthropic":
        assert body["type"] == "error"
    assert isinstance(message, str)
    assert message
    return message
