"""The rendering processes of one owner: a few, started when they are needed and kept."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from engine.errors import BusyError, EngineDeadError, RequestError, TemplateCostError
from engine.templates import wire
from engine.templates.limits import LIMITS, MAX_REQUEST, Limits
from engine.templates.process import ProcessEndedError, StaleProcessError, TemplateProcess
from engine.templates.wire import Kind

logger = logging.getLogger(__name__)

_CLOSED = "the server is shutting down"


class TemplatePool:
    """Renders chat templates in at most `limits.processes` processes. All methods are thread-safe.

    A process that exceeds its limits is replaced. Nothing is started before `warm` or `render`.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._idle: list[TemplateProcess] = []
        self._busy: list[TemplateProcess] = []
        self._places = limits.processes
        self._closed = False
        self._warned: set[str] = set()

    @property
    def pids(self) -> list[int]:
        """The ids of the processes at this moment."""
        with self._changed:
            return [process.pid for process in (*self._idle, *self._busy)]

    def warm(self) -> None:
        """Start a process if there is none, without waiting for it. Raises `BusyError`."""
        with self._changed:
            if not (self._closed or self._idle or self._busy):
                self._idle.append(TemplateProcess(self._limits))

    def render(
        self, source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]
    ) -> tuple[Kind, str]:
        """What the template makes of the messages: a text, or the kind and reason of a failure.

        Raises `TemplateCostError` when the template exceeds the limits, `RequestError` for messages that
        are not JSON or too large, `BusyError` when no process was free for long, `EngineDeadError` after
        `close`.
        """
        request = _packed({"source": source, "messages": messages, "variables": variables})
        with self._place():
            try:
                return self._rendered(request)
            except ProcessEndedError as error:
                self._replace()
                raise self._too_much(error) from None

    def close(self) -> None:
        """End the processes. Those who wait, and all later calls, get `EngineDeadError`."""
        with self._changed:
            self._closed = True
            for process in self._idle:
                process.close()
            self._idle.clear()
            for process in self._busy:
                process.end()

    @contextmanager
    def _place(self) -> Iterator[None]:
        end = time.monotonic() + self._limits.wait_seconds
        with self._changed:
            while self._places == 0 and not self._closed:
                if not self._changed.wait(end - time.monotonic()) and time.monotonic() >= end:
                    raise BusyError("the chat template is busy with other requests; please try again later")
            self._places -= 1
        try:
            yield
        finally:
            with self._changed:
                self._places += 1
                self._changed.notify_all()

    def _rendered(self, request: bytes) -> tuple[Kind, str]:
        """The reply of the first process that is there to reply; in a place of one's own."""
        for _ in range(1 + self._limits.processes):
            process = self._taken()
            kept = False
            try:
                reply = process.render(request)
                kept = True
                return reply
            except StaleProcessError:
                continue
            finally:
                self._put_back(process, kept)
        raise BusyError("the process for the chat template does not start")

    def _replace(self) -> None:
        """Start a process in one's own place, so that the next one who renders finds it ready."""
        with self._changed, contextlib.suppress(BusyError):
            if not (self._closed or self._idle):
                self._idle.append(TemplateProcess(self._limits))

    def _taken(self) -> TemplateProcess:
        with self._changed:
            if self._busy:
                self._changed.wait_for(lambda: self._idle or self._closed, self._limits.share_seconds)
            if self._closed:
                raise EngineDeadError(_CLOSED)
            process = self._idle.pop() if self._idle else TemplateProcess(self._limits)
            self._busy.append(process)
            return process

    def _put_back(self, process: TemplateProcess, kept: bool) -> None:
        with self._changed:
            self._busy.remove(process)
            if kept and not self._closed:
                self._idle.append(process)
                return
        process.close()

    def _too_much(self, ended: ProcessEndedError) -> TemplateCostError:
        """The error for the client; one of each kind is logged."""
        error = TemplateCostError(f"the model's chat template was stopped: it {ended}")
        with self._changed:
            first = ended.kind not in self._warned
            self._warned.add(ended.kind)
        if first:
            logger.warning("%s", error)
        return error


@cache
def shared_pool() -> TemplatePool:
    """The pool of those who have none of their own. Its processes end with the interpreter."""
    return TemplatePool()


def _packed(request: Mapping[str, Any]) -> bytes:
    try:
        body = wire.encode(json.dumps(request, ensure_ascii=False, default=_plain))
    except (TypeError, ValueError, RecursionError):
        raise RequestError("the messages or variables for the chat template are not JSON") from None
    if len(body) > MAX_REQUEST:
        raise RequestError(f"the chat is too long: {len(body)} bytes; at most {MAX_REQUEST} are accepted")
    return body


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError
