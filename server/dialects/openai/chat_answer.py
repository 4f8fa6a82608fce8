"""The frames of one answer of `/v1/chat/completions`: whole, or chunk by chunk. Pure; half of `convert`."""

from dataclasses import dataclass, field
from typing import Any

from engine.types import Progress, TokenLogprob, Usage
from server.chat.message import (
    ContentDelta,
    Delta,
    Ended,
    Ending,
    Message,
    ReasoningDelta,
    ToolCall,
    ToolCallDelta,
)
from server.dialects.openai.answer import Head, error_chunk
from server.dialects.openai.convert import usage_reply
from server.wire.custom_input import CustomInput
from server.wire.logprobs import chat_logprobs
from server.wire.tools import NO_TOOLS, Offer


@dataclass(slots=True)
class ChatAnswer:
    """One answer with a message for each choice.

    `logprobs`: whether the client wants probabilities; `offer` has the client's names of the tools.
    """

    head: Head
    logprobs: bool = False
    offer: Offer = NO_TOOLS
    _inputs: dict[tuple[int, int], CustomInput] = field(default_factory=dict)
    """Of the calls of custom tools so far, by choice and call."""
    _usages: dict[int, Usage] = field(default_factory=dict)

    kind = "chat.completion.chunk"

    def whole(self, messages: list[Message]) -> dict[str, Any]:
        """The answer in one piece; `messages` are in the order of the choices."""
        choices = [
            {
                "index": index,
                "message": self._message(message),
                "logprobs": self._told(message.logprobs),
                "finish_reason": message.ending.value,
            }
            for index, message in enumerate(messages)
        ]
        usage = usage_reply((message.usage for message in messages), self.head.choices)
        return self.head.frame("chat.completion", choices) | {"usage": usage}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first token: who speaks."""
        return [
            self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self.head.choices)
        ]

    def chunks(self, index: int, delta: Delta | Progress) -> list[dict[str, Any]]:
        """What to send for more of the message of one choice, or of its prompt."""
        match delta:
            case Progress():
                return [self.head.progress(self.kind, self._choice(index, {}), delta)]
            case ContentDelta(text, logprobs):
                return [self._chunk(index, {"content": text}, self._told(logprobs))]
            case ReasoningDelta(text):
                return [self._chunk(index, {"reasoning_content": text})]
            case ToolCallDelta():
                return [self._chunk(index, {"tool_calls": [self._call(index, delta)]})]
            case Ended(Ending.ERROR, _, error, refused):
                return [error_chunk(error, refused=refused)]
            case Ended(ending, usage):
                self._usages[index] = usage
                return [self._chunk(index, {}, finish=ending.value)]

    def closing(self) -> list[dict[str, Any]]:
        """The chunk with the costs, if the client wants it."""
        return self.head.closing(self.kind, self._usages)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        return self.head.chunk(self.kind, self._choice(index, delta, logprobs, finish))

    @staticmethod
    def _choice(
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _told(self, logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any] | None:
        return {"content": chat_logprobs(logprobs)} if self.logprobs else None

    def _message(self, message: Message) -> dict[str, Any]:
        calls = [self._whole_call(call) for call in message.tool_calls]
        content = message.content if message.content or not calls else None
        said: dict[str, Any] = {"role": "assistant", "content": content, "tool_calls": calls}
        return said | {"reasoning_content": message.reasoning} if message.reasoning else said

    def _whole_call(self, call: ToolCall) -> dict[str, Any]:
        tool = self.offer.declaration(call.name)
        if tool.custom:
            said = {"name": tool.name, "input": CustomInput().push(call.arguments)}
            return {"id": call.id, "type": "custom", "custom": said}
        return {"id": call.id, "type": "function", "function": _function(call.name, call.arguments)}

    def _call(self, choice: int, delta: ToolCallDelta) -> dict[str, Any]:
        place = (choice, delta.index)
        if delta.id:
            head = {"index": delta.index, "id": delta.id}
            tool = self.offer.declaration(delta.name)
            if not tool.custom:
                return head | {"type": "function", "function": _function(delta.name, delta.arguments)}
            self._inputs[place] = CustomInput()
            said = {"name": tool.name, "input": self._inputs[place].push(delta.arguments)}
            return head | {"type": "custom", "custom": said}
        if place in self._inputs:
            return {"index": delta.index, "custom": {"input": self._inputs[place].push(delta.arguments)}}
        return {"index": delta.index, "function": {"arguments": delta.arguments}}


def _function(name: str, arguments: str) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}
