"""The frames of one answer of `/v1/completions`: whole, or chunk by chunk. Pure; half of `convert`."""

from dataclasses import dataclass, field
from typing import Any

from engine.types import Event, FinishReason, Progress, Usage
from server.dialects.openai.convert import FINISH, progress_reply, usage_reply
from server.service import Reply
from server.wire.logprobs import completion_logprobs, echo_logprobs, joined


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of an answer begins with. `choices` of them belong to each prompt."""

    id: str
    model: str
    created: int
    choices: int = 1
    include_usage: bool = False

    def frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk of a stream, or the beginning of a whole answer. `kind`: OpenAI's name of the object."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def chunk(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        """A chunk of a stream with news of one choice."""
        return self.frame(kind, [choice]) | ({"usage": None} if self.include_usage else {})

    def progress(self, kind: str, choice: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """A chunk of a stream with how far the prompt of one choice is read."""
        return self.chunk(kind, choice) | {"prompt_progress": progress_reply(progress)}

    def closing(self, kind: str, usages: dict[int, Usage]) -> list[dict[str, Any]]:
        """The chunk with the costs, by choice, if the client wants it."""
        if not self.include_usage:
            return []
        costs = usage_reply([usages[index] for index in sorted(usages)], self.choices)
        return [self.frame(kind, []) | {"usage": costs}]


def error_chunk(message: str | None, *, refused: bool) -> dict[str, Any]:
    """What a stream says when the engine has failed, or refuses to go on."""
    kind = "invalid_request_error" if refused else "server_error"
    return {"error": {"message": message or "the engine failed", "type": kind}}


@dataclass(slots=True)
class CompletionAnswer:
    """One answer, from its head to its last chunk.

    `indexes` maps the engine's request ids to the places of the choices; `echoes` holds the prompt's
    text for each choice when the client wants it back, `logprobs` whether it wants probabilities.
    """

    head: Head
    indexes: dict[str, int]
    echoes: tuple[str, ...] = ()
    logprobs: bool = False
    _usages: dict[int, Usage] = field(default_factory=dict)
    _offsets: dict[int, int] = field(default_factory=dict)
    """Where the next token of each choice begins in its text."""

    kind = "text_completion"

    def whole(self, replies: list[Reply]) -> dict[str, Any]:
        """The answer in one piece; `replies` are in the order of the choices."""
        choices = []
        for index, reply in enumerate(replies):
            echo = self._echo(index)
            told = completion_logprobs(reply.logprobs, len(echo)) if self.logprobs else None
            if told is not None and reply.prompt_logprobs:
                told = joined(echo_logprobs(reply.prompt_logprobs, len(echo)), told)
            choices.append(
                {
                    "index": index,
                    "text": echo + reply.text,
                    "logprobs": told,
                    "finish_reason": FINISH[reply.finish],
                }
            )
        usage = usage_reply((reply.usage for reply in replies), self.head.choices)
        return self.head.frame(self.kind, choices) | {"usage": usage}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first token: the echoed prompts."""
        return [self._chunk(index, echo) for index in range(len(self.indexes)) if (echo := self._echo(index))]

    def chunks(self, event: Event) -> list[dict[str, Any]]:
        """What to send for one event: its text, then its end."""
        index = self.indexes[event.request_id]
        chunks = []
        if event.progress is not None:
            chunks.append(self.head.progress(self.kind, self._choice(index, ""), event.progress))
        if event.prompt_logprobs:
            told = echo_logprobs(event.prompt_logprobs, len(self._echo(index)))
            chunks.append(self._chunk(index, "", told))
        if event.text or (event.logprobs and self.logprobs):
            chunks.append(self._chunk(index, event.text, self._told(index, event) if self.logprobs else None))
        if event.finish is FinishReason.ERROR:
            chunks.append(error_chunk(event.error, refused=event.refused))
        elif event.finish is not None:
            self._usages[index] = event.usage if event.usage is not None else Usage(0, 0)
            chunks.append(self._chunk(index, "", finish=FINISH[event.finish]))
        return chunks

    def closing(self) -> list[dict[str, Any]]:
        """The chunk with the costs, if the client wants it."""
        return self.head.closing(self.kind, self._usages)

    def _told(self, index: int, event: Event) -> dict[str, Any]:
        offset = self._offsets.get(index, len(self._echo(index)))
        told = completion_logprobs(event.logprobs, offset)
        # Not by the text of the event: it may end within a token, which is told with the next one.
        self._offsets[index] = offset + sum(map(len, told["tokens"]))
        return told

    def _chunk(
        self, index: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> dict[str, Any]:
        return self.head.chunk(self.kind, self._choice(index, text, logprobs, finish))

    @staticmethod
    def _choice(
        index: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _echo(self, index: int) -> str:
        return self.echoes[index] if self.echoes else ""
