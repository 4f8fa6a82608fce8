"""The frames of one OpenAI answer: whole, or chunk by chunk. Pure; the second half of `convert`."""

from dataclasses import dataclass, field
from typing import Any

from engine.types import Event, FinishReason, Usage
from server.dialects.openai.convert import FINISH, usage_reply
from server.service import Reply


@dataclass(slots=True)
class Answer:
    """One answer, from its head to its last chunk.

    `indexes` maps the engine's request ids to the places of the choices; `choices` of them belong to
    each prompt; `echoes` holds the prompt's text for each choice when the client wants it back.
    """

    id: str
    model: str
    created: int
    chat: bool
    indexes: dict[str, int]
    choices: int = 1
    echoes: tuple[str, ...] = ()
    include_usage: bool = False
    _usages: dict[int, Usage] = field(default_factory=dict)

    def whole(self, replies: list[Reply]) -> dict[str, Any]:
        """The answer in one piece; `replies` are in the order of the choices."""
        choices = []
        for index, reply in enumerate(replies):
            choice: dict[str, Any] = {"index": index}
            if self.chat:
                choice["message"] = {"role": "assistant", "content": reply.text, "tool_calls": []}
            else:
                choice["text"] = self._echo(index) + reply.text
            choices.append(choice | {"logprobs": None, "finish_reason": FINISH[reply.finish]})
        usage = usage_reply((reply.usage for reply in replies), self.choices)
        return self._head(streaming=False) | {"usage": usage, "choices": choices}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first token: the role of a chat message, or the echoed prompt."""
        places = range(len(self.indexes))
        if self.chat:
            return [self._chunk(index, {"role": "assistant", "content": ""}) for index in places]
        return [self._chunk(index, {}, echo) for index in places if (echo := self._echo(index))]

    def chunks(self, event: Event) -> list[dict[str, Any]]:
        """What to send for one event: its text, then its end."""
        index = self.indexes[event.request_id]
        chunks = []
        if event.text:
            chunks.append(self._chunk(index, {"content": event.text}, event.text))
        if event.finish is FinishReason.ERROR:
            chunks.append({"error": {"message": event.error or "the engine failed", "type": "server_error"}})
        elif event.finish is not None:
            self._usages[index] = event.usage if event.usage is not None else Usage(0, 0)
            chunks.append(self._chunk(index, {}, "", FINISH[event.finish]))
        return chunks

    def closing(self) -> list[dict[str, Any]]:
        """The chunk with the costs, if the client wants it."""
        if not self.include_usage:
            return []
        usages = [self._usages[index] for index in sorted(self._usages)]
        return [self._head(streaming=True) | {"choices": [], "usage": usage_reply(usages, self.choices)}]

    def _chunk(
        self, index: int, delta: dict[str, str], text: str = "", finish: str | None = None
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": delta} if self.chat else {"text": text}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self.include_usage else {}
        return self._head(streaming=True) | {"choices": [choice]} | usage

    def _head(self, *, streaming: bool) -> dict[str, Any]:
        name = "text_completion"
        if self.chat:
            name = "chat.completion.chunk" if streaming else "chat.completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def _echo(self, index: int) -> str:
        return self.echoes[index] if self.echoes else ""
