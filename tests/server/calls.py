"""Every way to ask for text, with a reply that fills the context unless it is ended."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.server.live import Answer

ENDLESS = 8000
"""Tokens of a reply: more than any context of the tests has."""
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "ban_eos_token": True}
OPTIONS = {"num_predict": ENDLESS, "ban_eos_token": True}

Reader = Callable[[Answer], list[Any]]


@dataclass(frozen=True)
class Call:
    """One endpoint and a body for it, which asks for `count` generations.

    `finish` reads from an answer why each of them ended, in the dialect's own words; `aborted` is the
    dialect's word for one that was aborted. `options`: where the dialect takes a genkey.
    """

    path: str
    fields: dict[str, Any]
    finish: Reader
    aborted: Any
    count: int = 1
    options: bool = False

    def body(self, genkey: str = "") -> dict[str, Any]:
        if not genkey:
            return self.fields
        if self.options:
            return self.fields | {"options": self.fields["options"] | {"genkey": genkey}}
        return self.fields | {"genkey": genkey}


def _events(answer: Answer) -> list[dict[str, Any]]:
    """The data of server-sent events, but for OpenAI's last word."""
    frames = answer.body.decode("ascii").split("\n\n")[:-1]
    data = [frame.partition("data: ")[2] for frame in frames]
    return [json.loads(text) for text in data if text != "[DONE]"]


def _lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


def _kobold(answer: Answer) -> list[Any]:
    return [result["finish_reason"] for result in answer.json["results"]]


def _kobold_stream(answer: Answer) -> list[Any]:
    return [event["finish_reason"] for event in _events(answer)[-1:]]


def _basic(answer: Answer) -> list[Any]:
    return [sorted(answer.json["data"])]  # there is no word for the end


def _openai(answer: Answer) -> list[Any]:
    return [choice["finish_reason"] for choice in answer.json["choices"]]


def _openai_stream(answer: Answer) -> list[Any]:
    choices = [choice for event in _events(answer) for choice in event["choices"]]
    ends = {choice["index"]: choice["finish_reason"] for choice in choices if choice["finish_reason"]}
    return [ends[index] for index in sorted(ends)]


def _responses(answer: Answer) -> list[Any]:
    return [_ending(answer.json)]


def _responses_stream(answer: Answer) -> list[Any]:
    last = _events(answer)[-1]
    assert last["type"] == f"response.{last['response']['status']}"
    return [_ending(last["response"])]


def _ending(response: dict[str, Any]) -> Any:
    return response["status"], response["incomplete_details"]


def _anthropic(answer: Answer) -> list[Any]:
    return [answer.json["stop_reason"]]


def _anthropic_stream(answer: Answer) -> list[Any]:
    *_, delta, stop = _events(answer)
    assert stop == {"type": "message_stop"}
    return [delta["delta"]["stop_reason"]]


def _ollama(answer: Answer) -> list[Any]:
    return [answer.json["done_reason"]]


def _ollama_stream(answer: Answer) -> list[Any]:
    return [line["done_reason"] for line in _lines(answer) if line["done"]]


_KOBOLD = {"prompt": "hello", "max_length": ENDLESS, "ban_eos_token": True}
_COMPLETION = {"prompt": ["a", "b"], "n": 2, "max_tokens": ENDLESS, "ban_eos_token": True}
_CHOICES = CHAT | {"max_tokens": ENDLESS, "n": 2}
_RESPONSE = {"input": "hello", "max_output_tokens": ENDLESS, "ban_eos_token": True}
_MESSAGE = CHAT | {"max_tokens": ENDLESS}
_OLLAMA_CHAT = {"messages": CHAT["messages"], "options": OPTIONS}
_OLLAMA = {"prompt": "hello", "options": OPTIONS}
_CUT_SHORT = ("incomplete", {"reason": "max_output_tokens"})
_WHOLE, _STREAM = {"stream": False}, {"stream": True}

CALLS = {
    "kobold": Call("/api/v1/generate", _KOBOLD, _kobold, "length"),
    "kobold-stream": Call("/api/extra/generate/stream", _KOBOLD, _kobold_stream, "length"),
    "kobold-basic": Call("/request", _KOBOLD | {"text": "hello", "max": ENDLESS}, _basic, ["seqs"]),
    "completions": Call("/v1/completions", _COMPLETION, _openai, "length", 4),
    "completions-stream": Call("/v1/completions", _COMPLETION | _STREAM, _openai_stream, "length", 4),
    "chat": Call("/v1/chat/completions", _CHOICES, _openai, "length", 2),
    "chat-stream": Call("/v1/chat/completions", _CHOICES | _STREAM, _openai_stream, "length", 2),
    "responses": Call("/v1/responses", _RESPONSE, _responses, _CUT_SHORT),
    "responses-stream": Call("/v1/responses", _RESPONSE | _STREAM, _responses_stream, _CUT_SHORT),
    "anthropic": Call("/v1/messages", _MESSAGE, _anthropic, "max_tokens"),
    "anthropic-stream": Call("/v1/messages", _MESSAGE | _STREAM, _anthropic_stream, "max_tokens"),
    "ollama-chat": Call("/api/chat", _OLLAMA_CHAT | _WHOLE, _ollama, "length", options=True),
    "ollama-chat-stream": Call("/api/chat", _OLLAMA_CHAT, _ollama_stream, "length", options=True),
    "ollama": Call("/api/generate", _OLLAMA | _WHOLE, _ollama, "length", options=True),
    "ollama-stream": Call("/api/generate", _OLLAMA, _ollama_stream, "length", options=True),
    "ollama-raw": Call("/api/generate", _OLLAMA | {"raw": True} | _WHOLE, _ollama, "length", options=True),
}
