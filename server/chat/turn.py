"""The assistant's turn, from the events of its generation."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from engine.types import Event, FinishReason, TokenLogprob, Usage
from server.chat.markers import Piece
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
from server.chat.reasoning import Splitter
from server.chat.tools.parser import ToolCallParser


class TurnReader:
    """Turns the events of one generation into news of a message; one reader for each generation.

    `splitter` finds the thoughts, and `parser`, if there are tools, the calls in the rest. Thoughts are
    content like the answer unless `split_reasoning`. `hidden_ends` are the texts of end tokens, for
    requests that render special tokens only so that tags can be seen.
    """

    def __init__(
        self,
        splitter: Splitter,
        parser: ToolCallParser | None,
        *,
        split_reasoning: bool,
        hidden_ends: Collection[str] = (),
    ) -> None:
        self._splitter = splitter
        self._parser = parser
        self._split_reasoning = split_reasoning
        self._hidden_ends = sorted(hidden_ends, key=len, reverse=True)
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def push(self, event: Event) -> list[Delta]:
        """The next event of the generation -> what it adds to the message; the last one adds `Ended`.

        The logprobs of tokens travel with the next content. Those of thoughts and of calls are dropped,
        unless they are in one event with content.
        """
        aside = self._aside
        deltas = self._read(self._splitter.push(self._text(event)))
        if event.finish is not None:
            deltas += self._read(self._splitter.flush())
            if self._parser is not None:
                deltas += [_delta(part) for part in self._parser.flush()]
        deltas = _joined(deltas)

        self._logprobs += event.logprobs
        for place, delta in enumerate(deltas):
            if isinstance(delta, ContentDelta):
                deltas[place] = replace(delta, logprobs=self._logprobs)
                self._logprobs = ()
                break
        if aside or self._aside:
            self._logprobs = ()
        if event.finish is not None:
            deltas.append(self._end(event, event.finish))
        return deltas

    @property
    def _aside(self) -> bool:
        """Whether the text so far ends in a thought or a call."""
        return self._splitter.thinking or (self._parser is not None and self._parser.calling)

    def _text(self, event: Event) -> str:
        if event.finish is FinishReason.EOS:
            for end in self._hidden_ends:
                if event.text.endswith(end):
                    return event.text.removesuffix(end)
        return event.text

    def _read(self, pieces: Iterable[Piece]) -> list[Delta]:
        deltas: list[Delta] = []
        for piece in pieces:
            if piece.thought and self._split_reasoning:
                deltas.append(ReasoningDelta(piece.text))
            elif piece.thought or self._parser is None:
                deltas.append(ContentDelta(piece.text))
            else:
                deltas += [_delta(part) for part in self._parser.push(piece.text)]
        return deltas

    def _end(self, event: Event, finish: FinishReason) -> Ended:
        if finish is FinishReason.ERROR:
            ending = Ending.ERROR
        elif finish in (FinishReason.LENGTH, FinishReason.ABORT):
            ending = Ending.LENGTH
        else:
            called = self._parser is not None and self._parser.calls > 0
            ending = Ending.TOOL_CALLS if called else Ending.STOP
        return Ended(ending, Usage(0, 0) if event.usage is None else event.usage, event.error, event.refused)


def collect(deltas: Iterable[Delta]) -> Message:
    """The whole message of the deltas of one turn, up to and with its end.

    Raises `ValueError` where the end is missing.
    """
    content: list[str] = []
    reasoning: list[str] = []
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: dict[int, ToolCall] = {}
    for delta in deltas:
        match delta:
            case ContentDelta():
                content.append(delta.text)
                logprobs += delta.logprobs
            case ReasoningDelta():
                reasoning.append(delta.text)
            case ToolCallDelta():
                call = calls.get(delta.index, ToolCall(delta.id, delta.name, ""))
                calls[delta.index] = replace(call, arguments=call.arguments + delta.arguments)
            case Ended():
                return Message(
                    content="".join(content),
                    reasoning="".join(reasoning),
                    tool_calls=tuple(calls[index] for index in sorted(calls)),
                    ending=delta.ending,
                    usage=delta.usage,
                    logprobs=logprobs,
                    error=delta.error,
                    refused=delta.refused,
                )
    raise ValueError("the deltas have no end")


def _delta(part: str | ToolCallDelta) -> Delta:
    return ContentDelta(part) if isinstance(part, str) else part


def _joined(deltas: Iterable[Delta]) -> list[Delta]:
    """Neighbours of one kind as one, so that an event makes no more chunks than it must."""
    joined: list[Delta] = []
    for delta in deltas:
        match joined[-1] if joined else None, delta:
            case (ContentDelta() as before, ContentDelta()):
                joined[-1] = replace(before, text=before.text + delta.text)
            case (ReasoningDelta() as before, ReasoningDelta()):
                joined[-1] = replace(before, text=before.text + delta.text)
            case (ToolCallDelta(name="") as before, ToolCallDelta(name="")):
                joined[-1] = replace(before, arguments=before.arguments + delta.arguments)
            case _:
                joined.append(delta)
    return joined
