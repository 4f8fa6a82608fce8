"""The items of a response's output, each with the events that tell of it. Pure; a part of `answer`."""

from dataclasses import dataclass, field
from typing import Any

from engine.types import TokenLogprob
from server.chat.message import ContentDelta, ReasoningDelta, ToolCallDelta
from server.dialects.responses.items import Item, seal
from server.wire.custom_input import CustomInput
from server.wire.logprobs import chat_logprobs
from server.wire.tools import Declaration

Event = dict[str, Any]
Part = ContentDelta | ReasoningDelta | ToolCallDelta

OPEN = "in_progress"


@dataclass(slots=True)
class _Prose:
    """An item with one part, which is text."""

    id: str
    text: str = ""
    status: str = OPEN

    def opening(self) -> list[Event]:
        """The events in front of the first delta."""
        added = {"type": "response.output_item.added", "item": self.whole() | {"content": []}}
        return [added, self._of("response.content_part.added", part=self._part())]

    def closing(self, status: str) -> list[Event]:
        """The events behind the last delta; `status` is the item's from then on."""
        self.status = status
        return [
            self._done(),
            self._of("response.content_part.done", part=self._part()),
            {"type": "response.output_item.done", "item": self.whole()},
        ]

    def whole(self) -> Item:
        """The item as it is now."""
        return {"id": self.id, "status": self.status, "content": [self._part()]}

    def _done(self) -> Event:
        raise NotImplementedError

    def _part(self) -> dict[str, Any]:
        raise NotImplementedError

    def _of(self, kind: str, **said: Any) -> Event:
        return {"type": kind, "item_id": self.id, "content_index": 0} | said


@dataclass(slots=True)
class TextItem(_Prose):
    """A message with the answer's text."""

    logprobs: tuple[TokenLogprob, ...] = ()

    def takes(self, delta: Part) -> bool:
        """Whether `delta` goes on with this item."""
        return isinstance(delta, ContentDelta)

    def more(self, delta: Part) -> list[Event]:
        """The events of one more delta."""
        assert isinstance(delta, ContentDelta)
        self.text += delta.text
        self.logprobs += delta.logprobs
        shown = chat_logprobs(delta.logprobs)
        return [self._of("response.output_text.delta", delta=delta.text, logprobs=shown)]

    def whole(self) -> Item:
        """The item as it is now."""
        return {"type": "message", "role": "assistant"} | _Prose.whole(self)

    def _done(self) -> Event:
        shown = chat_logprobs(self.logprobs)
        return self._of("response.output_text.done", text=self.text, logprobs=shown)

    def _part(self) -> dict[str, Any]:
        shown = chat_logprobs(self.logprobs)
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": shown}


@dataclass(slots=True)
class ReasoningItem(_Prose):
    """The thoughts in front of an answer; `sealed`: also in the form that clients send back unread."""

    sealed: bool = False

    def takes(self, delta: Part) -> bool:
        """Whether `delta` goes on with this item."""
        return isinstance(delta, ReasoningDelta)

    def more(self, delta: Part) -> list[Event]:
        """The events of one more delta."""
        assert isinstance(delta, ReasoningDelta)
        self.text += delta.text
        return [self._of("response.reasoning_text.delta", delta=delta.text)]

    def whole(self) -> Item:
        """The item as it is now."""
        item = {"type": "reasoning", "summary": []} | _Prose.whole(self)
        return item | {"encrypted_content": seal(self.text)} if self.sealed else item

    def _done(self) -> Event:
        return self._of("response.reasoning_text.done", text=self.text)

    def _part(self) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": self.text}


@dataclass(slots=True)
class CallItem:
    """A call of a function, the `index`-th call of the reply. `key`: the model's name of the tool."""

    id: str
    index: int
    call_id: str
    key: str
    tool: Declaration
    arguments: str = ""
    status: str = OPEN

    def takes(self, delta: Part) -> bool:
        """Whether `delta` goes on with this item."""
        return isinstance(delta, ToolCallDelta) and delta.index == self.index

    def opening(self) -> list[Event]:
        """The events in front of the first delta."""
        return [{"type": "response.output_item.added", "item": self.whole()}]

    def more(self, delta: Part) -> list[Event]:
        """The events of one more delta."""
        assert isinstance(delta, ToolCallDelta)
        if not delta.arguments:
            return []
        self.arguments += delta.arguments
        return self._changed(delta.arguments)

    def closing(self, status: str) -> list[Event]:
        """The events behind the last delta; `status` is the item's from then on."""
        self.status = status
        return [self._done(), {"type": "response.output_item.done", "item": self.whole()}]

    def whole(self) -> Item:
        """The item as it is now."""
        return self._head("function_call") | {"arguments": self.arguments}

    @property
    def tool_call(self) -> dict[str, Any]:
        """The call in OpenAI's chat shape, as the model made it."""
        function = {"name": self.key, "arguments": self.arguments}
        return {"id": self.call_id, "type": "function", "function": function}

    def _head(self, kind: str) -> Item:
        space = {} if self.tool.namespace is None else {"namespace": self.tool.namespace}
        head = {"id": self.id, "type": kind, "status": self.status, "call_id": self.call_id}
        return head | {"name": self.tool.name} | space

    def _changed(self, arguments: str) -> list[Event]:
        kind = "response.function_call_arguments.delta"
        return [{"type": kind, "item_id": self.id, "delta": arguments}]

    def _done(self) -> Event:
        kind = "response.function_call_arguments.done"
        return {"type": kind, "item_id": self.id, "name": self.tool.name, "arguments": self.arguments}


@dataclass(slots=True)
class CustomCallItem(CallItem):
    """A call of a custom tool, whose input is text."""

    input: CustomInput = field(default_factory=CustomInput)

    def whole(self) -> Item:
        """The item as it is now."""
        return self._head("custom_tool_call") | {"input": self.input.text}

    def _changed(self, arguments: str) -> list[Event]:
        if not (text := self.input.push(arguments)):
            return []
        return [{"type": "response.custom_tool_call_input.delta", "item_id": self.id, "delta": text}]

    def _done(self) -> Event:
        kind = "response.custom_tool_call_input.done"
        return {"type": kind, "item_id": self.id, "input": self.input.text}


OutputItem = TextItem | ReasoningItem | CallItem
