"""A Python process that holds what is measured, asked in lines of JSON, and asleep between questions."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.processes import end, start
from engine.errors import NkatError

Answers = Mapping[str, Callable[[], dict[str, Any]]]
"""What a child can be asked, and what it does then."""


class ChildError(NkatError):
    """A process of ours ended or said why it could not do its part."""


class Child:
    """`python -m MODULE ARGUMENTS...`, for modules that call `answer`. A context manager."""

    def __init__(self, module: str, *arguments: str, threads: int) -> None:
        """Start it and wait until it is ready, which is when `hello` has what it said."""
        self._module = module
        # The number of threads is part of what is measured, so no setting of the caller's may count.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        started = time.perf_counter()
        command = [sys.executable, "-m", module, *arguments]
        self._process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        try:
            self.hello = self._answer()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - started
        """From the start of the process to its first line."""

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: str) -> dict[str, Any]:
        """Have it do one thing. Raises `ChildError`."""
        assert self._process.stdin is not None, "it has a pipe"
        try:
            self._process.stdin.write(f"{question}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(f"{self._module} ended before it was asked") from None
        return self._answer()

    def close(self) -> None:
        """End it, and wait for its end."""
        end(self._process)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it has a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self._module} ended before it answered")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer


def answer(ready: Callable[[], tuple[dict[str, Any], Answers]]) -> None:
    """The child's side: get ready, say hello, and answer the questions on stdin until it ends."""
    try:
        hello, answers = ready()
        _say(hello)
        for line in sys.stdin:
            _say(answers[line.strip()]())
    except NkatError as error:
        _say({"error": str(error)})


def _say(said: Mapping[str, Any]) -> None:
    print(json.dumps(said), flush=True)
