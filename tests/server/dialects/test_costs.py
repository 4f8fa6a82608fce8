"""What the dialects tell of a generation's costs is what the engine says of them, the cache included."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.types import Usage
from tests.server.live import Answer, LiveServer

LENGTH = 6
LONG_HELLO = "hello world " * 40
"""More than one block of the prefix cache."""


def openai_costs(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": LENGTH,
        "total_tokens": usage.prompt_tokens + LENGTH,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def responses_costs(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": LENGTH,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + LENGTH,
    }


def anthropic_costs(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": LENGTH,
    }


def ollama_costs(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": int(usage.prompt_seconds * 1e9),
        "eval_count": LENGTH,
        "eval_duration": int(usage.decode_seconds * 1e9),
    }


TELLING: dict[str, tuple[str, Callable[[Usage], dict[str, Any]]]] = {
    "/v1/completions": ("prompt", openai_costs),
    "/v1/chat/completions": ("messages", openai_costs),
    "/v1/responses": ("input", responses_costs),
    "/v1/messages": ("messages", anthropic_costs),
    "/api/chat": ("messages", ollama_costs),
    "/api/generate": ("prompt", ollama_costs),
}
"""Where a prompt goes, and what the dialect tells of the costs."""


def last_told(answer: Answer) -> dict[str, Any]:
    """The costs as the last event, line or object with them has them."""
    lines = answer.body.decode("ascii").replace("data: ", "").splitlines()
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    for told in reversed(objects):
        told = told.get("response", told) if isinstance(told.get("response"), dict) else told
        if "eval_count" in told:
            return {name: told[name] for name in ollama_costs(Usage(0, 0))}
        if told.get("usage") is not None:
            usage: dict[str, Any] = told["usage"]
            return usage
    raise AssertionError("no costs")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", TELLING)
def test_costs_tell_what_the_cache_had(path: str, streamed: bool, server: LiveServer) -> None:
    field, costs = TELLING[path]
    prompt: Any = [{"role": "user", "content": LONG_HELLO}] if field == "messages" else LONG_HELLO
    lengths = {"max_tokens": LENGTH, "max_output_tokens": LENGTH, "ban_eos_token": True}
    body = lengths | {
        field: prompt,
        "stream": streamed,
        "stream_options": {"include_usage": True},
        "options": {"num_predict": LENGTH, "ban_eos_token": True},
    }
    for round_ in range(2):
        answer = server.post(path, body)
        assert answer.status == 200
        usage = server.worker.snapshot().last_usage
        assert usage is not None
        assert usage.completion_tokens == LENGTH
        assert last_told(answer) == costs(usage)
        if round_ == 1:
            assert 0 < usage.cached_tokens < usage.prompt_tokens
