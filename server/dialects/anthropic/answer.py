"""One Anthropic answer: its events as they come, and all of it. Pure; the second half of `convert`."""

import json
from dataclasses import dataclass, field
from typing import Any

from engine.errors import failure
from engine.types import FinishReason, Usage
from server.chat.message import ContentDelta, Delta, Ended, Ending, ReasoningDelta, ToolCallDelta

STOP_REASONS = {Ending.STOP: "end_turn", Ending.LENGTH: "max_tokens", Ending.TOOL_CALLS: "tool_use"}

Event = dict[str, Any]


@dataclass(slots=True)
class Answer:
    """One answer, from its head to its end. `thinking`: whether thoughts are shown.

    `stops`: the strings that end the reply, all of them the client's own. `opening`, then `events` for
    each delta in its order, are what a stream sends; after the last delta `whole` is the same in one piece.
    """

    id: str
    model: str
    thinking: bool
    stops: tuple[str, ...] = ()
    _blocks: list[dict[str, Any]] = field(default_factory=list)
    _open: tuple[str, int] | None = None
    """Kind of the open block, which is the last one, and which call of a tool it is."""
    _pieces: list[str] = field(default_factory=list)
    """The text of the open block."""
    _ended: Ended | None = None
    _stop: dict[str, str | None] = field(default_factory=lambda: {"stop_reason": None, "stop_sequence": None})

    def opening(self, prompt_tokens: int) -> list[Event]:
        """The events before the first delta. How much of the prompt was cached is known at the end."""
        message = self._message([], Usage(prompt_tokens, 0))
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def events(self, delta: Delta, finish: FinishReason | None = None) -> list[Event]:
        """What to send for one delta; with the last one comes the engine's word for the end."""
        start: Event
        match delta:
            case ContentDelta():
                start = {"type": "text", "text": ""}
                return self._more(("text", 0), start, {"type": "text_delta", "text": delta.text})
            case ReasoningDelta():
                if not self.thinking:
                    return []
                start = {"type": "thinking", "thinking": "", "signature": ""}
                change = {"type": "thinking_delta", "thinking": delta.text}
                return self._more(("thinking", 0), start, change)
            case ToolCallDelta():
                start = {"type": "tool_use", "id": delta.id, "name": delta.name, "input": {}}
                change = {"type": "input_json_delta", "partial_json": delta.arguments}
                return self._more(("tool_use", delta.index), start, change)
            case Ended():
                return self._end(delta, finish)

    def whole(self) -> dict[str, Any]:
        """The message after its end. Raises what `failure` makes of an error."""
        assert self._ended is not None
        if self._ended.ending is Ending.ERROR:
            raise failure(self._ended.error, refused=self._ended.refused)
        return self._message(self._blocks, self._ended.usage)

    def _more(self, place: tuple[str, int], start: dict[str, Any], change: dict[str, Any]) -> list[Event]:
        """`change` at the end of the block at `place`, which begins as `start`."""
        events = []
        text = next(value for name, value in change.items() if name != "type")
        if self._open != place:
            if not text and place[0] != "tool_use":
                return []
            events += self._close()
            self._open = place
            self._blocks.append(start)
            events.append({"type": "content_block_start", "index": self._index, "content_block": dict(start)})
        if text:
            self._pieces.append(text)
            events.append({"type": "content_block_delta", "index": self._index, "delta": change})
        return events

    def _close(self) -> list[Event]:
        if self._open is None:
            return []
        kind, _ = self._open
        text = "".join(self._pieces)
        if kind == "tool_use":
            self._blocks[-1]["input"] = _object(text)
        else:
            self._blocks[-1][kind] = text
        self._open = None
        self._pieces.clear()
        return [{"type": "content_block_stop", "index": self._index}]

    def _end(self, ended: Ended, finish: FinishReason | None) -> list[Event]:
        self._ended = ended
        if ended.ending is Ending.ERROR:
            kind = "invalid_request_error" if ended.refused else "api_error"
            message = ended.error or "the engine failed"
            return [{"type": "error", "error": {"type": kind, "message": message}}]
        self._stop["stop_reason"] = STOP_REASONS[ended.ending]
        if self.stops and ended.ending is Ending.STOP and finish is FinishReason.STOP:
            # The engine does not say which string it met.
            met = self.stops[0] if len(self.stops) == 1 else None
            self._stop = {"stop_reason": "stop_sequence", "stop_sequence": met}
        return [
            *self._close(),
            {"type": "message_delta", "delta": self._stop, "usage": usage_reply(ended.usage)},
            {"type": "message_stop"},
        ]

    @property
    def _index(self) -> int:
        return len(self._blocks) - 1

    def _message(self, blocks: list[dict[str, Any]], usage: Usage) -> Event:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": blocks,
            **self._stop,
            "usage": usage_reply(usage),
        }


def usage_reply(usage: Usage) -> dict[str, int]:
    """The costs. `input_tokens` are those that no cache had: Anthropic counts the others apart."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        **usage.left_out("left_out_input_tokens"),
        "output_tokens": usage.completion_tokens,
    }


def _object(text: str) -> dict[str, Any]:
    """The arguments of a call; those of a call that was cut short are lost."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
