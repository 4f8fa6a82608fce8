"""Recorded exchanges with KoboldCpp, replayed: status, headers, shape, types, framing."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.deviations import ADDED_KEYS, DEVIATIONS
from tests.server.live import Answer, LiveServer

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "kobold"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
OWN_HEADERS = {"host", "content-length", "connection"}

Exchange = dict[str, Any]


def replay(server: LiveServer, exchange: Exchange) -> Answer:
    request = exchange["request"]
    body = request.get("body")
    raw = body.encode() if body is not None else None
    if "body_b64" in request:
        raw = base64.b64decode(request["body_b64"])
    headers = {name: value for name, value in request["headers"] if name.lower() not in OWN_HEADERS}
    return server.ask(request["method"], request["path"], raw, headers)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_exchange(name: str, server: LiveServer, recorded_key_server: LiveServer) -> None:
    exchange = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    answer = replay(recorded_key_server if name.startswith("pw_") else server, exchange)
    recorded = exchange["response"]

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
        return
    assert answer.status == recorded["status"]
    assert (answer.header("content-type") or "").split(";")[0] == content_type(recorded)
    if content_type(recorded) == "text/event-stream":
        compare_streams(recorded["body"], answer.body.decode("ascii"))
    elif "json" in recorded:
        compare(recorded["json"], answer.json)
    else:
        assert answer.body.decode() == recorded["body"]


def content_type(recorded: Exchange) -> str:
    return next(str(value) for name, value in recorded["headers"] if name == "content-type")


def compare(recorded: Any, ours: Any, where: str = "$") -> None:
    """Same keys, same JSON types; lists by their first items. Values are the model's business."""
    if recorded == "null" and where.endswith("finish_reason"):
        assert ours is None  # the string "null" of 1.76
    elif isinstance(recorded, dict):
        assert isinstance(ours, dict), where
        assert recorded.keys() <= ours.keys(), where
        assert ours.keys() - recorded.keys() <= ADDED_KEYS, where
        for key, value in recorded.items():
            compare(value, ours[key], f"{where}.{key}")
    elif isinstance(recorded, list):
        assert isinstance(ours, list), where
        if recorded and ours:
            compare(recorded[0], ours[0], f"{where}[0]")
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
