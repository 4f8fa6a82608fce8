"""Whole sessions in the shapes of Codex and Claude Code, with official clients and a real engine.

The model is random: its calls are forced, and what it says besides is of no interest. Every prompt must come
from the cache as far as the one before it was the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from engine.worker import EngineWorker
from server.settings import Settings
from tests.server.chat.templates import AGENT
from tests.server.live import LiveServer, serving
from tests.support.gguf_files import write_llama

BLOCK = 32
"""Tokens at the end of a prompt that need not be cached: a block that is not full, and an opened reply."""
RULES = "You are a coding agent. " + " ".join(f"Rule {number}: ask before you write." for number in range(20))
COMMAND: Any = {
    "type": "object",
    "properties": {
        "command": {"type": "array", "items": {"enum": ["ls", "cat"]}, "minItems": 1, "maxItems": 2}
    },
    "required": ["command"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose template shows tools and thoughts."""
    path: Path = tmp_path_factory.mktemp("agents") / "agent.gguf"
    model = write_llama(path, context_length=16384, chat_template=AGENT)
    settings = Settings(model=model, contextsize=16384, threads=1)
    worker = EngineWorker.start(settings.engine_config())
    try:
        with serving(worker, settings) as server:
            yield server
            server.wait_until_idle()
    finally:
        worker.close()


class Codex:
    """Sends what Codex sends: everything anew with each turn, nothing kept by the server."""

    tools: Any = (
        {"type": "function", "name": "shell", "description": "Runs.", "strict": False, "parameters": COMMAND},
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits.",
            "format": {
                "type": "grammar",
                "syntax": "lark",
                "definition": "start: begin_patch hunk+ end_patch",
            },
        },
        {"type": "web_search", "external_web_access": True},
        {"type": "image_generation", "output_format": "png"},
        {"type": "local_shell"},
        {
            "type": "namespace",
            "name": "mcp__notes",
            "description": "Notes.",
            "tools": [
                {
                    "type": "function",
                    "name": "list",
                    "strict": False,
                    "parameters": {"type": "object", "properties": {}},
                }
            ],
        },
    )

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client
        self.history: list[Any] = []
        self.seen = 0
        """Tokens of the last prompt."""

    def turn(self, *items: Any, choice: Any = "auto") -> tuple[Any, list[str]]:
        """The response after these items, and the types of its events; its output joins the history."""
        self.history += items
        stream = self._client.responses.create(
            model="any",
            instructions=RULES,
            input=self.history,
            tools=self.tools,
            tool_choice=choice,
            parallel_tool_calls=False,
            reasoning={"effort": "medium", "summary": "auto"},
            store=False,
            stream=True,
            include=["reasoning.encrypted_content"],
            text={"verbosity": "low"},
            prompt_cache_key="session",
            max_output_tokens=150,
            extra_body={"client_metadata": {"turn": len(self.history)}},
        )
        events = list(stream)
        response: Any = events[-1]
        response = response.response
        assert [event.sequence_number for event in events] == list(range(len(events)))
        self.history += [item.to_dict() for item in response.output]
        return response, [event.type.removeprefix("response.") for event in events]

    def check_cache(self, response: Any) -> None:
        """The prompt begins with the one before, which must have come from the cache."""
        usage = response.usage
        assert usage.input_tokens > self.seen
        assert usage.input_tokens_details.cached_tokens >= self.seen - BLOCK
        self.seen = usage.input_tokens


def test_a_session_of_codex(agents: LiveServer) -> None:
    with openai.OpenAI(base_url=f"{agents.url}/v1", api_key="none", max_retries=0) as client:
        codex = Codex(client)
        context = {
            "type": "message",
            "role": "user",
            "content": [
                {
                    "type": "input_text",
                    "text": "<environment_context>\n  <cwd>/w</cwd>\n</environment_context>",
                }
            ],
        }
        rules = {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "Be safe."}],
        }
        ask = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "list the files"}],
        }

        first, kinds = codex.turn(rules, context, ask, choice={"type": "function", "name": "shell"})
        codex.seen = first.usage.input_tokens
        [call] = first.output
        assert (call.type, call.name) == ("function_call", "shell")
        assert set(json.loads(call.arguments)["command"]) <= {"ls", "cat"}
        assert kinds.count("output_item.added") == kinds.count("output_item.done") == 1
        assert kinds[-1] == "completed"

        # A thought in front of the call, as a model that thinks would have had it.
        thought = {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "I list."}],
        }
        codex.history.insert(-1, thought | {"encrypted_content": None})
        result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"output": "a.txt"}'}
        second, kinds = codex.turn(result, choice={"type": "custom", "name": "apply_patch"})
        codex.check_cache(second)
        [patch] = second.output
        assert (patch.type, patch.name) == ("custom_tool_call", "apply_patch")
        assert kinds.count("output_item.added") == 1

        edited = {"type": "custom_tool_call_output", "call_id": patch.call_id, "output": "edited"}
        third, _ = codex.turn(edited, choice="required")
        codex.check_cache(third)
        assert third.output[0].type in ("function_call", "custom_tool_call")

        results = [
            {"type": f"{item.type}_output", "call_id": item.call_id, "output": "done"}
            for item in third.output
        ]
        unknown = [
            {"type": "ghost_snapshot", "ghost_commit": {"id": "abc"}},
            {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
            {"type": "compaction", "encrypted_content": "gAAAA"},
            {"type": "a_later_invention", "payload": {"deep": [1, 2, 3]}},
        ]
        narrowed = {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [
                {"type": "function", "name": "list", "namespace": "mcp__notes"},
                {"type": "web_search"},
            ],
        }
        fourth, _ = codex.turn(*results, *unknown, choice=narrowed)
        codex.check_cache(fourth)
        [noted] = fourth.output
        assert (noted.name, noted.to_dict()["namespace"]) == ("list", "mcp__notes")

        none = [{"type": "input_text", "text": "no notes"}]
        fifth, _ = codex.turn({"type": "function_call_output", "call_id": noted.call_id, "output": none})
        codex.check_cache(fifth)

        # A new question: the thoughts of the loop before it leave the prompt, the calls stay.
        question = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "thank you"}],
        }
        sixth, _ = codex.turn(question)
        usage = sixth.usage
        assert usage.input_tokens_details.cached_tokens >= first.usage.input_tokens - BLOCK
        counted = client.responses.input_tokens.count(
            model="any", instructions=RULES, input=codex.history, tools=codex.tools
        )
        assert counted.input_tokens > usage.input_tokens


TOOLS: Any = [
    {
        "name": "Bash",
        "description": "Runs a command.",
        "input_schema": COMMAND,
        "cache_control": {"type": "ephemeral"},
    },
    {
        "name": "Read",
        "description": "Reads a file.",
        "input_schema": {
            "type": "object",
            "properties": {"line": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["line"],
            "additionalProperties": False,
        },
    },
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
]


class ClaudeCode:
    """Sends what Claude Code sends: a system prompt whose first block is another one with each request."""

    def __init__(self, client: anthropic.Anthropic) -> None:
        self._client = client
        self.turns: list[Any] = []
        self.seen = 0
        """Tokens of the last prompt."""
        self._requests = 0

    def fields(self) -> dict[str, Any]:
        """All that the model gets to read, with a fresh header."""
        self._requests += 1
        nonce = f"{self._requests * 7919:05x}"
        header = f"x-anthropic-billing-header: cc_version=2.1.{nonce}; cc_entrypoint=cli; cch={nonce};"
        cached = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        system = [{"type": "text", "text": header}, {"type": "text", "text": RULES} | cached]
        return {"model": "claude", "system": system, "messages": self.turns, "tools": TOOLS}

    def turn(self, *blocks: Any, choice: Any = None) -> Any:
        """The message after these blocks of the user, which joins the conversation."""
        self.turns.append({"role": "user", "content": list(blocks)})
        more: dict[str, Any] = {} if choice is None else {"tool_choice": choice}
        with self._client.beta.messages.stream(
            max_tokens=150,
            metadata={"user_id": "user_1"},
            thinking={"type": "enabled", "budget_tokens": 1024},
            betas=["interleaved-thinking-2025-05-14", "context-management-2025-06-27"],
            context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            **self.fields(),
            **more,
        ) as stream:
            kinds = [event.type for event in stream]
            message = stream.get_final_message()
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
        self.turns.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
        return message

    def check_cache(self, message: Any) -> None:
        """The prompt begins with the one before, which must have come from the cache."""
        usage = message.usage
        whole = usage.input_tokens + usage.cache_read_input_tokens
        assert whole > self.seen
        assert usage.cache_read_input_tokens >= self.seen - BLOCK
        self.seen = whole


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def result_of(message: Any, content: Any) -> dict[str, Any]:
    use = message.content[-1]
    assert use.type == "tool_use"
    return {"type": "tool_result", "tool_use_id": use.id, "content": content, "is_error": False}


def test_a_session_of_claude_code(agents: LiveServer) -> None:
    with anthropic.Anthropic(base_url=agents.url, api_key="none", max_retries=0) as client:
        code = ClaudeCode(client)
        code.turns.append({"role": "user", "content": "list the files"})
        counted = client.beta.messages.count_tokens(**code.fields())
        code.turns.clear()
        first = code.turn(text("list the files"), choice={"type": "tool", "name": "Bash"})
        whole = first.usage.input_tokens + first.usage.cache_read_input_tokens
        assert abs(counted.input_tokens - whole) <= 1
        code.seen = whole
        assert set(first.content[-1].input["command"]) <= {"ls", "cat"}
        assert first.stop_reason == "tool_use"

        # A thought in front of the call, as a model that thinks would have had it, and what nobody knows.
        thought = {"type": "thinking", "thinking": "I list.", "signature": "abc"}
        code.turns[-1]["content"][:0] = [thought, {"type": "redacted_thinking", "data": "xyz"}]
        code.turns[-1]["content"].append({"type": "a_later_invention", "payload": [1]})
        reminder = text("<system-reminder>Be terse.</system-reminder>")
        second = code.turn(result_of(first, [text("a.txt")]), reminder, choice={"type": "any"})
        code.check_cache(second)
        assert second.content[-1].name in ("Bash", "Read")

        searched = [
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        ]
        code.turns[-1]["content"][:0] = searched
        unknown = {"type": "tool_reference", "tool_name": "Read"}
        third = code.turn(
            result_of(second, [text("it says a"), unknown]), choice={"type": "tool", "name": "Read"}
        )
        code.check_cache(third)
        assert 1 <= third.content[-1].input["line"] <= 9

        fourth = code.turn(result_of(third, "line 7"), {"type": "a_later_invention", "text": "psst"})
        code.check_cache(fourth)
        hosted = code.turn(text("search for it"), choice={"type": "tool", "name": "web_search"})
        assert hosted.usage.cache_read_input_tokens >= whole - BLOCK
