"""A worker that says what a test tells it to: for calls of tools and thoughts, which tiny models do not make.

All above it is real: the server, the chat core, the dialects.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

from engine.metrics import Snapshot
from engine.tokenizer.chat_template import ChatTemplate
from engine.types import (
    ChatPrompt,
    Event,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
    Usage,
)
from engine.worker import EngineWorker
from server.settings import Settings
from tests.server.chat.templates import QWEN_3
from tests.server.live import LiveServer, serving

PIECE = 7
"""Characters of one event: pieces of tags, and more than one of a word."""
PATIENCE = 10.0
"""Seconds of a pause that no client ends."""
CACHED = 3
PROMPT_SECONDS, DECODE_SECONDS = 0.25, 0.5


@dataclass
class ScriptedWorker:
    """Token ids are the bytes of the text.

    `asked` holds the requests, as the dialects made them; `under_way` the ids of those whose reply has
    not ended, `aborted` those that were aborted before their end.
    """

    reply: str = "Hello!"
    finish: FinishReason = FinishReason.EOS
    error: str | None = None
    refused: bool = False
    asked: list[GenerationRequest] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    under_way: set[str] = field(default_factory=set)
    template: ChatTemplate = field(default_factory=lambda: ChatTemplate(QWEN_3))
    _pausing: bool = False
    _news: threading.Condition = field(default_factory=threading.Condition)
    """Guards all that replies under way look at."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("scripted", "qwen3", "Q8_0", 1, 4096, 4096, 256, QWEN_3, "", "<|im_end|>")

    @property
    def prompt(self) -> str:
        """The text of the last prompt."""
        prompt = self.asked[-1].prompt
        if isinstance(prompt, TokenPrompt):
            return bytes(prompt.ids).decode()
        assert isinstance(prompt, TextPrompt)
        return prompt.memory + prompt.text

    def say(
        self,
        reply: str,
        finish: FinishReason = FinishReason.EOS,
        error: str | None = None,
        *,
        refused: bool = False,
        pausing: bool = False,
    ) -> None:
        """What to answer from now on; one that is `pausing` stops behind its first piece until `go_on`."""
        self.reply, self.finish, self.error, self.refused = reply, finish, error, refused
        self.go_on()
        self._pausing = pausing

    def go_on(self) -> None:
        """The client has the first piece."""
        with self._news:
            self._pausing = False
            self._news.notify_all()

    def prepare(self, request: GenerationRequest) -> GenerationRequest:
        self.asked.append(request)
        return replace(request, prompt=TokenPrompt(tuple(self.prompt.encode())))

    def submit(self, request: GenerationRequest, on_event: Callable[[Event], None]) -> None:
        with self._news:
            self.under_way.add(request.request_id)
        threading.Thread(target=self._answer, args=(request, on_event)).start()

    def abort(self, request_id: str) -> None:
        """End the reply with its present piece; an unknown id is no error."""
        with self._news:
            if request_id in self.under_way:
                self.under_way.remove(request_id)
                self.aborted.append(request_id)
                self._news.notify_all()

    def snapshot(self) -> Snapshot:
        return Snapshot()

    def encode(self, text: str, *, add_bos: bool | None = None) -> list[int]:
        return list(text.encode())

    def encode_end(self, text: str, tokens: int) -> list[int]:
        return self.encode(text)

    def decode(self, ids: list[int], *, render_special: bool = False) -> str:
        return bytes(ids).decode(errors="replace")

    def stop_rendering(self) -> None:
        pass

    def render_chat(self, prompt: ChatPrompt) -> str:
        return self.template.render(
            prompt.messages,
            add_generation_prompt=True,
            continue_last=prompt.continue_last,
            tools=prompt.tools,
            arguments=prompt.template_args,
        )

    def _answer(self, request: GenerationRequest, on_event: Callable[[Event], None]) -> None:
        assert isinstance(request.prompt, TokenPrompt)
        name, made = request.request_id, 0
        for start in range(0, len(self.reply), PIECE):
            text = self.reply[start : start + PIECE]
            ids = tuple(text.encode())
            made += len(ids)
            shown = tuple(TokenLogprob(token, bytes([token]), -0.5) for token in ids)
            on_event(Event(name, text, ids, () if request.logprobs is None else shown))
            time.sleep(0.002)  # so that most events come one by one
            if self._is_aborted(name):
                break
        with self._news:
            aborted = name not in self.under_way
            self.under_way.discard(name)
        usage = Usage(len(request.prompt.ids), made, CACHED, PROMPT_SECONDS, DECODE_SECONDS)
        finish, error = (FinishReason.ABORT, None) if aborted else (self.finish, self.error)
        refused = self.refused and not aborted
        on_event(Event(name, finish=finish, usage=usage, error=error, refused=refused))

    def _is_aborted(self, name: str) -> bool:
        """Whether the reply ends here; waits as long as replies pause."""
        with self._news:
            self._news.wait_for(lambda: not self._pausing or name not in self.under_way, PATIENCE)
            return name not in self.under_way


@contextmanager
def scripted_server(settings: Settings) -> Iterator[tuple[LiveServer, ScriptedWorker]]:
    """A server whose model is scripted."""
    worker = ScriptedWorker()
    with serving(cast(EngineWorker, worker), settings) as server:
        yield server, worker
