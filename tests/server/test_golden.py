"""Recorded exchanges with KoboldCpp, replayed: status, headers, shape, types, framing."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.worker import EngineWorker
from server.service import Origin
from server.settings import Settings
from server.stops import KeylessStops
from tests.server.clients.running import LONG, running
from tests.server.deviations import DEVIATIONS, added_keys
from tests.server.live import Answer, LiveServer, serving, wait_for

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "kobold"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
OWN_HEADERS = {"host", "content-length", "connection"}

BUSY = {
    "a_busy_": "KEYA",
    "a_busy2_check_": "",
    "a_overflow_7": "",
    "a_overflow_8": "",
    "a_queue_abort_": "Q1",
    "a_queue_check_": "Q1",
    "a_queue_perf": "Q1",
    "a_sse_abort_call": "S1",
    "mu0_busy_": "",
    "mu3_r3": "",
}
"""Beginnings of the names of what was recorded while a generation ran, and that one's genkey."""

Exchange = dict[str, Any]


@pytest.fixture(scope="session")
def narrow_server(tiny_worker: EngineWorker, tiny_settings: Settings) -> Iterator[LiveServer]:
    """A server that takes one generation at a time, and lets none wait."""
    settings = tiny_settings.model_copy(update={"parallelrequests": 1, "multiuser": 0})
    with serving(tiny_worker, settings) as server:
        yield server


@contextmanager
def busy(server: LiveServer, genkey: str) -> Iterator[None]:
    """A generation with that key runs, and has said something."""
    # Connections that the last one closed are none of this one's aborts.
    server.service.stops = KeylessStops()
    with running(server, "/api/v1/generate", LONG | {"genkey": genkey}):
        wait_for(lambda: asyncio.run(server.service.said_so_far(Origin("127.0.0.1", genkey))).text)
        yield
    server.wait_until_idle()


def replay(server: LiveServer, exchange: Exchange) -> Answer:
    request = exchange["request"]
    body = request.get("body")
    raw = body.encode() if body is not None else None
    if "body_b64" in request:
        raw = base64.b64decode(request["body_b64"])
    headers = {name: value for name, value in request["headers"] if name.lower() not in OWN_HEADERS}
    return server.ask(request["method"], request["path"], raw, headers)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_exchange(
    name: str, server: LiveServer, recorded_key_server: LiveServer, narrow_server: LiveServer
) -> None:
    exchange = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    genkey = next((key for beginning, key in BUSY.items() if name.startswith(beginning)), None)
    if genkey is None:
        answer = replay(recorded_key_server if name.startswith("pw_") else server, exchange)
    else:
        with busy(narrow_server, genkey):
            answer = replay(narrow_server, exchange)
    recorded = exchange["response"]
    path = exchange["request"]["path"]

    for header in ("access-control-allow-origin", "access-control-allow-methods"):
        assert answer.header(header) == "*"
    assert "Authorization" in (answer.header("access-control-allow-headers") or "")
    assert answer.header("cache-control") == "no-store"

    deviation = DEVIATIONS.get(name)
    if deviation is not None:
        assert answer.status == deviation.status
        if deviation.status is not None and deviation.status >= 400:
            assert answer.json["detail"]["msg"]
            assert answer.json["error"]["message"] == answer.json["detail"]["msg"]
        if deviation.body is not None:
            assert answer.json == deviation.body
        assert deviation.status != recorded.get("status") or answer.body != recorded.get("body", "").encode()
        return
    assert answer.status == recorded["status"]
    assert (answer.header("content-type") or "").split(";")[0] == content_type(recorded)
    if content_type(recorded) == "text/event-stream":
        compare_streams(recorded["body"], answer.body.decode("ascii"))
    elif "json" in recorded:
        compare(recorded["json"], answer.json, added_keys(path))
        if path.endswith("/abort") or recorded["status"] == 503:
            assert answer.json | recorded["json"] == answer.json, "these words do not depend on the model"
        if genkey is not None and path.endswith("/check"):
            text = answer.json["results"][0]["text"]
            if recorded["json"]["results"][0]["text"]:
                assert text, "what runs has said something"
            elif exchange["request"].get("json", {}).get("genkey"):
                assert not text, "what runs has another key"
    else:
        assert answer.body.decode() == recorded["body"]


def content_type(recorded: Exchange) -> str:
    return next(str(value) for name, value in recorded["headers"] if name == "content-type")


def compare(recorded: Any, ours: Any, added: frozenset[str], where: str = "$") -> None:
    """Same keys but for those `added`, same JSON types; lists by their first items.

    Values are the model's business.
    """
    if recorded == "null" and where.endswith("finish_reason"):
        assert ours is None  # the string "null" of 1.76
    elif isinstance(recorded, dict):
        assert isinstance(ours, dict), where
        assert recorded.keys() <= ours.keys(), where
        assert ours.keys() - recorded.keys() <= added, where
        for key, value in recorded.items():
            compare(value, ours[key], added, f"{where}.{key}")
    elif isinstance(recorded, list):
        assert isinstance(ours, list), where
        if recorded and ours:
            compare(recorded[0], ours[0], added, f"{where}[0]")
        else:
            assert bool(recorded) == bool(ours) or where.endswith("ids"), where
    elif isinstance(recorded, bool) or not isinstance(recorded, (int, float)):
        assert type(ours) is type(recorded), where
    else:
        assert isinstance(ours, (int, float)), where
        assert not isinstance(ours, bool), where


def compare_streams(recorded: str, ours: str) -> None:
    """Same framing; every event of ours has the shape of the recorded ones."""
    named = recorded.startswith("event: message\n")
    events = ours.split("\n\n")
    assert events.pop() == "", "a stream ends with an empty line"
    if not named:
        assert events.pop() == "data: [DONE]"
    prefix = "event: message\ndata: " if named else "data: "
    template = json.loads(recorded.split("\n\n")[0].removeprefix(prefix))
    finishes = []
    for event in events:
        assert event.startswith(prefix)
        assert "\n" not in event.removeprefix(prefix)
        data = json.loads(event.removeprefix(prefix))
        if data.get("choices") == []:  # the costs, which 1.76 did not send
            assert data["usage"]["total_tokens"] > 0
            continue
        if named:
            assert data.keys() == template.keys()
            finishes.append(data["finish_reason"])
        else:
            assert template.keys() <= data.keys()
            assert template["choices"][0].keys() <= data["choices"][0].keys()
            finishes.append(data["choices"][0]["finish_reason"])
    assert finishes[-1] in ("stop", "length")
    assert set(finishes[:-1]) <= {None}


def test_each_deviation_is_explained() -> None:
    text = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    headings = {line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")}
    assert {deviation.heading for deviation in DEVIATIONS.values()} <= headings
    assert set(NAMES) >= DEVIATIONS.keys()


def test_each_busy_exchange_was_recorded() -> None:
    assert all(any(name.startswith(beginning) for name in NAMES) for beginning in BUSY)
