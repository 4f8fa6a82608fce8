"""Sends seeds to a child, starts another when one dies, and keeps what must not happen."""

import json
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any

CPU_SECONDS = 2.0
WALL_SECONDS = 120
"""After that a mutant hangs without computing."""


@dataclass
class Findings:
    """How many mutants came to what, and those that came to what must not be."""

    mutants: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


def fuzz(seeds: Iterable[int], *, cpu_seconds: float = CPU_SECONDS, limited: bool = True) -> Findings:
    """Load the mutants of these seeds."""
    findings = Findings()
    child = None
    for seed in seeds:
        child = child or _Child(cpu_seconds, limited)
        found = child.try_seed(seed)
        findings.mutants += 1
        if "outcome" in found:
            findings.outcomes[found["outcome"]] += 1
        else:
            findings.failures.append({"seed": seed, **found})
        if found.get("dead"):
            child = None
    if child is not None:
        child.close()
    return findings


class _Child:
    def __init__(self, cpu_seconds: float, limited: bool) -> None:
        command = [sys.executable, "-m", "tests.fuzz_files.child", str(cpu_seconds)]
        command.append("limited" if limited else "free")
        self._silent = False
        # A file: nobody reads a pipe before the end.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        if not self._read():
            raise RuntimeError(f"the child does not start: {self._last_words()}")

    def try_seed(self, seed: int) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(f"{seed}\n")
        stdin.flush()
        found = self._read()
        if found:
            return found
        return {"dead": True, "failed": self._last_words()}

    def close(self) -> None:
        self._process.communicate()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        """The next answer; empty if there is none."""
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], WALL_SECONDS)
        self._silent = not ready
        line = stdout.readline() if ready else ""
        answer: dict[str, Any] = json.loads(line) if line.endswith("\n") else {}
        return answer

    def _last_words(self) -> str:
        hangs = self._process.poll() is None and self._silent
        if hangs:
            self._process.kill()
        self._process.communicate()
        self._errors.seek(0)
        errors = self._errors.read()
        code = self._process.returncode
        name = signal.Signals(-code).name if code < 0 else str(code)
        why = "hangs" if hangs else {"SIGPROF": "takes too long"}.get(name, f"ends with {name}")
        return f"{why}: {errors[-6000:]}"
