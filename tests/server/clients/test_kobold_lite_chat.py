"""KoboldAI Lite's instruct mode, its tools, and its mode for OpenAI's servers."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.types import FinishReason
from tests.server.clients.lite import ABORT, DONE, INSTRUCT, SHORT, STORY, Lite, ShownError, read_openai
from tests.server.clients.running import running
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer, read_answer

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "What the weather is like.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "forecast")
]


def test_instruct_mode(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    """The page's words for the settings count on the chat endpoint, too."""
    server, worker = scripted
    worker.say("Hello there.", FinishReason.LENGTH)
    told = Lite(server).chat(
        INSTRUCT | {"sampler_seed": "7", "stop_sequence": ["\nMe:"], "temperature": 0.25}
    )
    assert (told.text, told.finish, told.dropped) == ("Hello there.", "length", ["[DONE]"])
    request = worker.asked[-1]
    assert worker.prompt.endswith("<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n")
    assert (request.max_tokens, request.context_length, request.trim_stop) == (768, 6144, True)
    assert "\nMe:" in request.stop
    sampling = request.sampling
    assert (sampling.seed, sampling.temperature, sampling.rep_pen, sampling.rep_pen_slope) == (
        7,
        0.25,
        1.05,
        0.7,
    )


def test_log_probabilities_after_a_chat(page: Lite) -> None:
    page.chat(
        INSTRUCT | {"logprobs": True, "genkey": "KCPP99", "max_length": 8, "use_default_badwordsids": True}
    )
    told = page.post("/api/extra/last_logprobs", {"genkey": "KCPP99"})["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in told] == [10] * 8
    plain = {"messages": INSTRUCT["messages"], "logprobs": True, "max_tokens": 2}
    entries = page.post("/v1/chat/completions", plain)["choices"][0]["logprobs"]["content"]
    assert not any(entry["top_logprobs"] for entry in entries), "OpenAI's clients say how many"


def test_a_turn_that_goes_on(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say(" and more.")
    begun = {"role": "assistant", "content": "Some"}
    assert Lite(server).chat(INSTRUCT | {"messages": [*INSTRUCT["messages"], begun]}).text == " and more."
    assert worker.prompt.endswith("<|im_start|>assistant\nSome")


def test_a_long_story(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    """The page sends all turns, and counts on the server to leave the oldest out."""
    server, worker = scripted
    worker.say("Go on.")
    turns = [
        {"role": role, "content": f"Turn {turn} of the {role}. " + "x" * 200}
        for turn in range(40)
        for role in ("user", "assistant")
    ]
    last = {"role": "user", "content": "And then?"}
    assert (
        Lite(server).chat(INSTRUCT | {"messages": [INSTRUCT["messages"][0], *turns, last]}).text == "Go on."
    )
    assert worker.prompt.startswith("<|im_start|>system\nBe brief.")
    assert "Turn 39 of the user" in worker.prompt
    assert "Turn 0 of the user" not in worker.prompt
    assert worker.prompt.endswith("And then?<|im_end|>\n<|im_start|>assistant\n")
    assert 3000 < len(worker.prompt) <= 4096 - 768, "as much as leaves room for the reply"


def test_thoughts_are_shown_apart(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say("<think>Hm, a greeting.</think>Good morning.")
    told = Lite(server).chat(INSTRUCT)
    assert (told.thoughts.strip(), told.text.strip()) == ("Hm, a greeting.", "Good morning.")


def test_tools(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    page = Lite(server)
    calls = [("weather", '{"city": "Zürich"}'), ("forecast", '{"city": "Bern"}')]
    worker.say(
        "I look. "
        + "".join(
            f'<tool_call>\n{{"name": "{name}", "arguments": {text}}}\n</tool_call>' for name, text in calls
        )
    )
    told = page.chat(INSTRUCT | {"tools": TOOLS})
    assert told.text.strip() == "I look."
    assert told.finish == "tool_calls", "without it the page drops the calls"
    assert [(call["name"], json.loads(call["arguments"])) for call in told.calls] == [
        (name, json.loads(text)) for name, text in calls
    ]
    assert len({call["id"] for call in told.calls}) == 2
    asked = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in told.calls
        ],
    }
    results = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["name"], "content": f"{call['name']}: rain"}
        for call in told.calls
    ]
    worker.say("It rains.")
    told = page.chat(INSTRUCT | {"tools": TOOLS, "messages": [*INSTRUCT["messages"], asked, *results]})
    assert (told.text, told.finish, told.calls) == ("It rains.", "stop", [])
    assert "weather: rain" in worker.prompt
    assert "forecast: rain" in worker.prompt


def test_aborting_a_chat(page: Lite, server: LiveServer) -> None:
    body = INSTRUCT | {"max_length": 2000, "use_default_badwordsids": True, "genkey": "KCPP5"}
    with running(server, "/v1/chat/completions", body) as connection:
        assert page.post(ABORT, {"genkey": "KCPP5"}) == DONE
        assert read_openai(read_answer(connection).body.decode()).finish == "length"


OPENAI = {
    "max_tokens": 12, "model": "koboldcpp/tiny", "temperature": 0.75, "top_p": 0.92,
    "stop": ["\nUser:", "\nAI:"], "presence_penalty": 0.05, "stream": True,
}  # fmt: skip


def test_openai_mode(page: Lite, server: LiveServer) -> None:
    assert server.get("/v1/models").json["data"][0]["id"] == "koboldcpp/tiny", (
        "the last probe, without headers"
    )
    assert page.get("/v1/models")["data"][0]["id"] == "koboldcpp/tiny"
    messages = [{"role": "user", "content": "hello"}]
    told = page.chat(OPENAI | {"messages": messages, "logprobs": True, "top_logprobs": 5})
    assert told.finish in ("stop", "length")
    told = page.chat(OPENAI | {"prompt": "hello", "logprobs": 5, "ban_eos_token": True}, "/v1/completions")
    assert told.text
    assert told.finish == "length"
    assert page.chat(STORY | OPENAI | {"messages": messages, "reasoning_effort": "low"}).finish
    everything = page.post("/v1/completions", STORY | OPENAI | {"stream": False})
    assert everything["choices"][0]["logprobs"] is None
    plain = page.post("/v1/chat/completions", OPENAI | {"messages": messages, "stream": False})
    assert isinstance(plain["choices"][0]["message"]["content"], str)
    with pytest.raises(ShownError, match="max_tokens: must be a number"):
        page.chat(OPENAI | {"messages": messages, "max_tokens": "many"})


def test_two_pages_do_not_disturb_each_other(server: LiveServer) -> None:
    ready = threading.Barrier(2)

    def write(seed: str) -> str:
        ready.wait()
        return Lite(server).stream(SHORT | {"sampler_seed": seed, "genkey": f"KCPP{seed}", "max_length": 60})[
            0
        ]

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(write, ("11", "12")))
    with ThreadPoolExecutor(1) as pool:
        ready = threading.Barrier(1)
        alone = list(pool.map(write, ("11", "12")))
    assert together == alone
