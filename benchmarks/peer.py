"""llama.cpp's programs, as the other side of `benchmarks.cpu`."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import end, start
from benchmarks.sizes import NEW_TOKENS, PROMPT_TOKENS, RSS_NEW_TOKENS
from engine.errors import NkatError

_LOAD_TIME = re.compile(r"llama_perf_context_print:\s+load time =\s+([\d.]+) ms")


class PeerError(NkatError):
    """A program of llama.cpp is not there, or does not say what it should."""


@dataclass(frozen=True, slots=True)
class BenchRun:
    """One run of llama-bench."""

    results: tuple[dict[str, Any], ...]
    """Of its tests, under its own names."""
    log: str
    """What it wrote to stderr."""
    first_seconds: float
    """From the start of the process to its first result."""
    peak_bytes: int
    """Resident at the most."""


class LlamaBench:
    """llama-bench, a fresh process for each measurement; each method gives its figures by name."""

    def __init__(self, program: Path, model: Path, threads: int) -> None:
        """Raises `PeerError` for a program that cannot be run."""
        self._program = runnable(program)
        self._common = ("-m", str(model), "-t", str(threads), "-r", "1", "-o", "jsonl")
        self.build = "unknown"
        """The commit that it was built from, once it has run."""

    def decode(self) -> dict[str, float]:
        """tg128: tokens/s of tokens from an empty context, without sampling and text."""
        return {"decode": tokens_per_second(self._run("-p", "0", "-n", str(NEW_TOKENS)))}

    def prefill(self) -> dict[str, float]:
        """pp512: tokens/s of a prompt."""
        return {"prefill": tokens_per_second(self._run("-p", str(PROMPT_TOKENS), "-n", "0"))}

    def load(self) -> dict[str, float]:
        """Seconds from opening the file to the end of the first evaluation, and the whole process's to it."""
        # Without the warm-up, the first evaluation is the first token as well; only -v shows the load time.
        run = self._run("-v", "--no-warmup", "-p", "0", "-n", "1")
        return {"load": load_seconds(run.log), "start": run.first_seconds}

    def memory(self) -> dict[str, float]:
        """MB at the most, of a prompt and then of some tokens, each in a context that just holds it."""
        run = self._run("-p", str(PROMPT_TOKENS), "-n", str(RSS_NEW_TOKENS))
        return {"rss": run.peak_bytes / 1e6, "rss_peak": run.peak_bytes / 1e6}

    def _run(self, *arguments: str) -> BenchRun:
        run = run_bench([self._program, *self._common, *arguments])
        self.build = str(run.results[0].get("build_commit", "unknown"))
        return run


def run_bench(command: list[str]) -> BenchRun:
    """Run llama-bench to its end, or end it. Raises `PeerError` with the last thing that it said."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        started = time.perf_counter()
        process = start(command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None, "it has a pipe"
        try:
            lines = [process.stdout.readline()]
            first_seconds = time.perf_counter() - started
            lines += process.stdout
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            end(process)
        log.seek(0)
        said = log.read()
    results = parse_results(lines)
    if process.returncode or not results:
        raise PeerError(f"{command[0]} failed: {_last_line(said)}")
    return BenchRun(results, said, first_seconds, usage.ru_maxrss * 1024)


def parse_results(lines: list[str]) -> tuple[dict[str, Any], ...]:
    """The lines of `-o jsonl`; others are passed over."""
    results = []
    for line in lines:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        if isinstance(result, dict):
            results.append(result)
    return tuple(results)


def tokens_per_second(run: BenchRun) -> float:
    """Of a run with one test. Raises `PeerError`."""
    speed = run.results[0].get("avg_ts")
    if not isinstance(speed, int | float) or speed <= 0:
        raise PeerError("llama-bench tells no avg_ts")
    return float(speed)


def load_seconds(log: str) -> float:
    """llama.cpp's own load time, of a run with one test. Raises `PeerError`."""
    found = _LOAD_TIME.search(log)
    if found is None:
        raise PeerError("llama-bench -v tells no load time")
    return float(found[1]) / 1000


def runnable(program: Path) -> str:
    """The program's path. Raises `PeerError` for what cannot be run."""
    found = shutil.which(program)
    if found is None:
        raise PeerError(f"{program} cannot be run: give the path of llama.cpp's program")
    return found


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
