"""One response: its events as they come, and the whole object. Pure; the second half of `convert`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.errors import failure
from engine.types import Usage
from server.chat.message import ContentDelta, Ended, Ending, ReasoningDelta
from server.dialects.responses.items import Message
from server.dialects.responses.output import (
    OPEN,
    CallItem,
    CustomCallItem,
    Event,
    OutputItem,
    Part,
    ReasoningItem,
    TextItem,
)
from server.wire.tools import NO_TOOLS, Offer

DONE, CUT_SHORT, FAILED = "completed", "incomplete", "failed"
STATUS = {Ending.STOP: DONE, Ending.TOOL_CALLS: DONE, Ending.LENGTH: CUT_SHORT, Ending.ERROR: FAILED}


@dataclass(slots=True)
class Answer:
    """One response, from its head to its end.

    `opening`, then `events` for each delta in its order, then `end` are what a stream sends. After the
    end `whole` is the response in one piece, and `message` the turn that a later response goes on from.
    `number` is a text that says nothing, of which all ids are made; `created` is in seconds since 1970;
    `echo` is what the response says of its request. `offer` has the client's names of the tools; `sealed`:
    thoughts come as `encrypted_content` as well.
    """

    number: str
    model: str
    created: int
    echo: dict[str, Any]
    offer: Offer = NO_TOOLS
    sealed: bool = False
    _items: list[OutputItem] = field(default_factory=list)
    _sent: int = 0
    _last: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id of the response."""
        return f"resp_{self.number}"

    @property
    def ended_well(self) -> bool:
        """Whether the end has come, and the engine did not fail."""
        return bool(self._last) and self._last["error"] is None

    @property
    def thoughts(self) -> str:
        """All thoughts so far."""
        return "".join(item.text for item in self._items if isinstance(item, ReasoningItem))

    @property
    def message(self) -> Message:
        """The assistant's turn, in OpenAI's chat shape."""
        texts = [item.text for item in self._items if isinstance(item, TextItem)]
        message: Message = {"role": "assistant", "content": "".join(texts)}
        calls = [item.tool_call for item in self._items if isinstance(item, CallItem)]
        thoughts = {"reasoning_content": self.thoughts} if self.thoughts else {}
        return message | thoughts | ({"tool_calls": calls} if calls else {})

    def opening(self) -> list[Event]:
        """The events before the first delta."""
        head = self._response(OPEN)
        return self._numbered({"type": f"response.{word}", "response": head} for word in ("created", OPEN))

    def events(self, delta: Part) -> list[Event]:
        """What to send for one delta."""
        if isinstance(delta, ContentDelta | ReasoningDelta) and not delta.text:
            return []
        return self._numbered(self._grow(delta))

    def end(self, ended: Ended, thought_tokens: int, completed: int) -> list[Event]:
        """The events behind the last delta.

        `thought_tokens`: how many tokens the thoughts took; `completed`: the time in seconds since 1970.
        """
        status = STATUS[ended.ending]
        closing = list(self._close(DONE if status == DONE else CUT_SHORT))
        self._last = self._response(status) | {
            "output": [item.whole() for item in self._items],
            "usage": usage_reply(ended.usage, thought_tokens),
        }
        match ended.ending:
            case Ending.LENGTH:
                self._last["incomplete_details"] = {"reason": "max_output_tokens"}
            case Ending.ERROR:
                message = ended.error or "the engine failed"
                code = "invalid_prompt" if ended.refused else "server_error"
                self._last["error"] = {"code": code, "message": message}
            case _:
                self._last["completed_at"] = completed
        return self._numbered([*closing, {"type": f"response.{status}", "response": self._last}])

    def whole(self) -> dict[str, Any]:
        """The response after its end. Raises what `failure` makes of an error."""
        error = self._last["error"]
        if error is not None:
            raise failure(error["message"], refused=error["code"] != "server_error")
        return self._last

    def _grow(self, delta: Part) -> Iterator[Event]:
        if not self._items or not self._items[-1].takes(delta):
            yield from self._close(DONE)
            self._items.append(self._new_item(delta))
            yield from self._placed(self._items[-1].opening())
        yield from self._placed(self._items[-1].more(delta))

    def _new_item(self, delta: Part) -> OutputItem:
        number = f"{self.number}{len(self._items):02x}"
        match delta:
            case ContentDelta():
                return TextItem(f"msg_{number}")
            case ReasoningDelta():
                return ReasoningItem(f"rs_{number}", sealed=self.sealed)
        tool = self.offer.declaration(delta.name)
        if tool.custom:
            return CustomCallItem(f"ctc_{number}", delta.index, delta.id, delta.name, tool)
        return CallItem(f"fc_{number}", delta.index, delta.id, delta.name, tool)

    def _close(self, status: str) -> Iterator[Event]:
        if self._items:
            yield from self._placed(self._items[-1].closing(status))

    def _placed(self, events: list[Event]) -> Iterator[Event]:
        for event in events:
            yield event | {"output_index": len(self._items) - 1}

    def _numbered(self, events: Iterable[Event]) -> list[Event]:
        numbered = []
        for event in events:
            numbered.append(event | {"sequence_number": self._sent})
            self._sent += 1
        return numbered

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [],
            "usage": None,
            **self.echo,
        }


def usage_reply(usage: Usage, thought_tokens: int) -> dict[str, Any]:
    """The costs; the cache keeps what it has seen without counting it apart."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,
            **usage.left_out("left_out_tokens"),
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": thought_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
