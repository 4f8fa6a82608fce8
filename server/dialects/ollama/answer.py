"""One Ollama answer, line by line or in one piece; the second half of `convert`."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engine.errors import failure
from engine.types import Event, FinishReason, TokenLogprob, Usage
from server.chat.message import ContentDelta, Delta, Ended, Ending, ReasoningDelta, ToolCallDelta
from server.wire.logprobs import chat_logprobs

DONE_REASONS = {Ending.STOP: "stop", Ending.LENGTH: "length", Ending.TOOL_CALLS: "stop"}
ENDINGS = {
    FinishReason.EOS: Ending.STOP,
    FinishReason.STOP: Ending.STOP,
    FinishReason.LENGTH: Ending.LENGTH,
    FinishReason.ABORT: Ending.LENGTH,
    FinishReason.ERROR: Ending.ERROR,
}

Line = dict[str, Any]


class RawReader:
    """Reads the reply to a raw prompt: all of it is the answer."""

    def push(self, event: Event) -> list[Delta]:
        """The deltas of one event."""
        deltas: list[Delta] = []
        if event.text or event.logprobs:
            deltas.append(ContentDelta(event.text, event.logprobs))
        if event.finish is not None:
            usage = event.usage if event.usage is not None else Usage(0, 0)
            deltas.append(Ended(ENDINGS[event.finish], usage, event.error, event.refused))
        return deltas


@dataclass(slots=True)
class Answer:
    """One answer. `chat`: a message is told, else a text. `thinking`: whether thoughts are told.

    `lines` gives what a stream sends for a delta; after the last one `whole` is the same in one piece.
    `started` and `taken` are when the request came and when the engine took it, in nanoseconds of
    `time.perf_counter_ns`. `context`: the prompt's token ids, if the answer shall tell those of the whole
    conversation; `made` adds those of the reply.
    """

    model: str
    chat: bool
    thinking: bool
    started: int
    taken: int = 0
    context: list[int] | None = None
    _text: str = ""
    _thoughts: str = ""
    _logprobs: tuple[TokenLogprob, ...] = ()
    _calls: list[ToolCallDelta] = field(default_factory=list)
    """Each call so far, its deltas joined."""
    _ended: Ended | None = None

    def lines(self, delta: Delta) -> list[Line]:
        """What to send for one delta. Calls of tools are told when they are whole, at the end."""
        match delta:
            case ContentDelta():
                self._text += delta.text
                self._logprobs += delta.logprobs
                said = self._said(delta.text) | self._probable(delta.logprobs)
                return [self._line(said)] if delta.text or delta.logprobs else []
            case ReasoningDelta():
                if not self.thinking:
                    return []
                self._thoughts += delta.text
                return [self._line(self._said("", thinking=delta.text))]
            case ToolCallDelta():
                self._add(delta)
                return []
            case Ended():
                return self._end(delta)

    def made(self, token_ids: tuple[int, ...]) -> None:
        """Take note of tokens of the reply."""
        if self.context is not None:
            self.context += token_ids

    def whole(self) -> Line:
        """The answer after its end. Raises what `failure` makes of an error."""
        assert self._ended is not None
        if self._ended.ending is Ending.ERROR:
            raise failure(self._ended.error, refused=self._ended.refused)
        said = self._said(self._text, self._thoughts, self._told_calls())
        return self._line(said | self._probable(self._logprobs)) | self._costs(self._ended)

    def nothing(self, *, unloaded: bool) -> Line:
        """The answer to a request that asks for no text, which loads a model at Ollama, or unloads it."""
        return self._line(self._said("")) | {"done": True, "done_reason": "unload" if unloaded else "load"}

    def _end(self, ended: Ended) -> list[Line]:
        self._ended = ended
        if ended.ending is Ending.ERROR:
            return [{"error": ended.error or "the engine failed"}]
        lines = [self._line(self._said("", calls=[call])) for call in self._told_calls()]
        return [*lines, self._line(self._said("")) | self._costs(ended)]

    def _add(self, delta: ToolCallDelta) -> None:
        for place, call in enumerate(self._calls):
            if call.index == delta.index:
                joined = call.arguments + delta.arguments
                self._calls[place] = ToolCallDelta(call.index, joined, call.id, call.name)
                return
        self._calls.append(delta)

    def _told_calls(self) -> list[dict[str, Any]]:
        """The calls; those that were cut short are left out."""
        told = []
        for call in self._calls:
            try:
                arguments = json.loads(call.arguments)
            except (ValueError, RecursionError):
                continue
            function = {"index": call.index, "name": call.name, "arguments": arguments}
            told.append({"id": call.id, "function": function})
        return told

    def _said(self, text: str, thinking: str = "", calls: list[dict[str, Any]] | None = None) -> Line:
        thoughts = {"thinking": thinking} if thinking else {}
        if not self.chat:
            return {"response": text} | thoughts
        told = {"tool_calls": calls} if calls else {}
        return {"message": {"role": "assistant", "content": text} | thoughts | told}

    def _probable(self, logprobs: tuple[TokenLogprob, ...]) -> Line:
        return {"logprobs": chat_logprobs(logprobs)} if logprobs else {}

    def _line(self, said: Line) -> Line:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {"model": self.model, "created_at": now} | said | {"done": False}

    def _costs(self, ended: Ended) -> Line:
        """What the last line has beside the text. Durations are nanoseconds."""
        usage = ended.usage
        context = {} if self.context is None else {"context": self.context}
        return {
            "done": True,
            "done_reason": DONE_REASONS[ended.ending],
            **context,
            "total_duration": time.perf_counter_ns() - self.started,
            "load_duration": self.taken - self.started,
            "prompt_eval_count": usage.prompt_tokens,
            **usage.left_out("prompt_left_out_count"),
            "prompt_eval_duration": int(usage.prompt_seconds * 1e9),
            "eval_count": usage.completion_tokens,
            "eval_duration": int(usage.decode_seconds * 1e9),
        }
