"""SillyTavern's mode "Chat Completion", source Custom: what it sends, and what it makes of the answers."""

import json
from typing import Any

import pytest

from tests.server.clients.running import running
from tests.server.clients.sillytavern import CHAT, CHATS, ApiError, SillyTavern, read_chat, without
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer


def test_connect_to_chats(server: LiveServer) -> None:
    assert SillyTavern(server, "undefined").get("/v1/models").json["data"][0]["id"] == "koboldcpp/tiny"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": ""},
        {"model": "gpt-4", "stop": ["\nUser:"], "seed": 5, "n": 1},
        {"logprobs": True, "top_logprobs": 5},
        {"messages": [*CHAT["messages"], {"role": "system", "content": "Go on."}]},
        {"messages": [*CHAT["messages"], {"role": "assistant", "content": "I am"}]},
        {"messages": [{"role": "assistant", "name": "Bramble", "content": "Hi."}]},
        {"messages": [{"role": "user", "name": "U", "content": [{"type": "text", "text": "hello"}]}]},
    ],
)
def test_chats(server: LiveServer, changes: dict[str, Any]) -> None:
    tavern = SillyTavern(server, "undefined")
    told = read_chat(tavern.post(CHATS, CHAT | changes | {"ban_eos_token": True}))
    assert told.text
    assert told.done
    whole = tavern.post(CHATS, without(CHAT, "stream") | changes | {"ban_eos_token": True}).json
    assert whole["choices"][0]["index"] == 0
    assert whole["choices"][0]["message"]["content"]


def test_a_template_that_takes_no_greeting(demo_server: LiveServer) -> None:
    told = read_chat(SillyTavern(demo_server, "undefined").post(CHATS, CHAT | {"temperature": 0}))
    assert told.text
    assert "<|im" not in told.text


def test_calls_of_tools(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    tool = {
        "type": "function",
        "function": {"name": "roll", "parameters": {"type": "object", "properties": {}}},
    }
    worker.say('<tool_call>\n{"name": "roll", "arguments": {"sides": 6}}\n</tool_call>')
    body = CHAT | {"tools": [tool], "tool_choice": "auto"}
    told = read_chat(SillyTavern(server).post(CHATS, body))
    message = SillyTavern(server).post(CHATS, without(body, "stream")).json["choices"][0]["message"]
    for calls in (told.calls, message["tool_calls"]):
        assert [call["function"]["name"] for call in calls] == ["roll"]
        assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"sides": 6}]
        assert len(calls[0]["id"]) > 5


def test_thoughts(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say("<think>A user.</think>Good evening.")
    told = read_chat(SillyTavern(server).post(CHATS, CHAT))
    assert (told.thoughts.strip(), told.text.strip()) == ("A user.", "Good evening.")


def test_errors_of_chats(tavern: SillyTavern) -> None:
    for body in (CHAT, without(CHAT, "stream")):
        with pytest.raises(ApiError, match="messages"):
            read_chat(tavern.post(CHATS, body | {"messages": [{"role": "user", "content": 5}]}))


def test_a_picture_is_refused_in_words(tavern: SillyTavern) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}}
    content = [{"type": "text", "text": "What is this?"}, picture]
    for body in (CHAT, without(CHAT, "stream")):
        with pytest.raises(ApiError, match="no model that sees"):
            read_chat(tavern.post(CHATS, body | {"messages": [{"role": "user", "content": content}]}))


def test_hanging_up_stops_a_chat(tavern: SillyTavern) -> None:
    aborted = tavern.server.worker.snapshot().requests_aborted
    with running(tavern.server, CHATS, CHAT | {"max_tokens": 2000, "ban_eos_token": True}):
        pass
    tavern.server.wait_until_idle()
    assert tavern.server.worker.snapshot().requests_aborted == aborted + 1
