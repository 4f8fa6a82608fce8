"""Layers around the application, each alone: what passes through them, message by message."""

import asyncio
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.logs import request_id
from server.middleware.crashes import CrashBoundary
from server.middleware.lingering import LingeringClose
from server.middleware.request_id import RequestId

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: dict[str, Any] = {"type": "http.response.body", "body": b"x", "more_body": False}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers without a look at the body."""
    await send(START)
    await send(END)


def visit(app: ASGIApp, *parts: Message, headers: dict[str, str] | None = None) -> list[Message]:
    """What `app` sends to one client, which sends these parts of a body and nothing more."""
    waiting, sent = list(parts), []

    async def receive() -> Message:
        assert waiting, "nobody may wait for more"
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": raw}

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    assert not waiting, "all was read"
    return sent


def part(more: bool) -> Message:
    return {"type": "http.request", "body": b"x", "more_body": more}


def test_an_early_answer_ends_when_the_body_has_been_read() -> None:
    sent = visit(LingeringClose(answer), part(True), part(True), part(False))
    assert sent == [START, END | {"more_body": True}, END | {"body": b""}]


def test_an_early_answer_does_not_wait_for_a_client_that_waits_for_it() -> None:
    assert visit(LingeringClose(answer), headers={"expect": "100-continue"}) == [START, END]


def test_a_client_that_leaves_is_not_waited_for() -> None:
    sent = visit(LingeringClose(answer), part(True), {"type": "http.disconnect"})
    assert sent[-1] == END | {"body": b""}


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def fail_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    raise ZeroDivisionError


def test_a_crash_before_the_answer_becomes_one() -> None:
    start, body = visit(CrashBoundary(fail))
    assert start["status"] == 500
    assert b"the server's log says more" in body["body"]


def test_a_crash_behind_the_start_is_the_web_servers() -> None:
    """It cannot begin once more: the connection must break, so that the client sees it is not whole."""
    with pytest.raises(ZeroDivisionError):
        visit(CrashBoundary(fail_late))


def test_each_request_has_an_id_of_its_own_up_to_its_end() -> None:
    seen = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(request_id.get())

    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            await RequestId(look)(scope, receive, send)
            seen.append(request_id.get())

    visit(twice)
    first, between, second, behind = seen
    assert between == behind == "-"
    assert len({first, second, between}) == 3
