"""How far a prompt is read, in the streams of clients that ask."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from server.settings import Settings
from tests.server.live import LiveServer, serving_alone

PROMPT = "hello world the to " * 300
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": PROMPT},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": PROMPT}]},
}


@pytest.fixture(scope="module")
def slow(tiny_settings: Settings) -> Iterator[LiveServer]:
    """A server that reads prompts in steps of 128 tokens."""
    settings = tiny_settings.model_copy(update={"blasbatchsize": 128})
    with serving_alone(settings) as server:
        yield server


def told(server: LiveServer, path: str, **fields: Any) -> tuple[list[dict[str, int]], int]:
    """The progress in a stream's events, and the tokens of its prompt."""
    body = (
        BODIES[path] | {"max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}} | fields
    )
    frames = server.post(path, body).body.decode().split("\n\n")
    events = [json.loads(frame.removeprefix("data: ")) for frame in frames if frame.startswith("data: {")]
    assert all(event["choices"] for event in events[:-1])
    found = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    return found, events[-1]["usage"]["prompt_tokens"]


@pytest.mark.parametrize("path", BODIES)
def test_a_stream_tells_how_far_its_prompt_is_read(slow: LiveServer, path: str) -> None:
    found, tokens = told(slow, path, return_progress=True)
    assert len(found) >= 3
    assert {one["total"] for one in found} == {tokens}
    read = [one["processed"] for one in found]
    assert read == sorted(set(read))
    assert found[0]["cache"] < read[0]
    assert read[-1] < tokens
    times = [one["time_ms"] for one in found]
    assert times == sorted(times)
    cached, _ = told(slow, path, return_progress=True)
    assert not cached, "all but the last tokens are in the cache"


@pytest.mark.parametrize("path", BODIES)
def test_who_does_not_ask_hears_nothing(slow: LiveServer, path: str) -> None:
    changed = json.loads(json.dumps(BODIES[path]).replace("hello", "world"))
    assert told(slow, path, **changed)[0] == []


@pytest.mark.parametrize("path", BODIES)
def test_a_whole_answer_has_none(slow: LiveServer, path: str) -> None:
    changed = json.loads(json.dumps(BODIES[path]).replace("hello", "the"))
    answer = slow.post(path, changed | {"max_tokens": 4, "return_progress": True})
    assert answer.status == 200
    assert "prompt_progress" not in answer.json
