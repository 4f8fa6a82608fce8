"""The items of a response's output, each with the events that tell of it. Pure; a part of `answer`."""

from dataclasses import dataclass
from typing import Any

from engine.types import TokenLogprob
from server.chat.message import ContentDelta, ReasoningDelta, ToolCallDelta
from server.dialects.responses.items import Item
from server.wire.logprobs import chat_logprobs

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
    """The thoughts in front of an answer."""

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
        return {"type": "reasoning", "summary": []} | _Prose.whole(self)

    def _done(self) -> Event:
        return self._of("response.reasoning_text.done", text=self.text)

    def _part(self) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": self.text}


@dataclass(slots=True)
class CallItem:
    """A call of a tool, the `index`-th of the reply."""

    id: str
    index: int
    call_id: str
    name: str
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
        kind = "response.function_call_arguments.delta"
        return [{"type": kind, "item_id": self.id, "delta": delta.arguments}]

    def closing(self, status: str) -> list[Event]:
        """The events behind the last delta; `status` is the item's from then on."""
        self.status = status
        done = {"type": "response.function_call_arguments.done", "item_id": self.id, "name": self.name}
        return [
            done | {"arguments": self.arguments},
            {"type": "response.output_item.done", "item": self.whole()},
        ]

    def whole(self) -> Item:
        """The item as it is now."""
        head = {"id": self.id, "type": "function_call", "status": self.status}
        return head | {"call_id": self.call_id, "name": self.name, "arguments": self.arguments}

    @property
    def tool_call(self) -> dict[str, Any]:
        """The call in OpenAI's chat shape."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.call_id, "type": "function", "function": function}


OutputItem = TextItem | ReasoningItem | CallItem
