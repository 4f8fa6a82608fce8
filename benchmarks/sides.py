"""Who measures what: our side of each part, and what it is compared with."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.child import Child
from benchmarks.limits import Limits, Work
from benchmarks.peer import LlamaBench, runnable
from benchmarks.processes import busy_core
from benchmarks.servers import llama_server, our_server
from engine.gguf import GGUFFile

PARTS = ("decode", "prefill", "load", "rss", "batch8", "busy")

Measure = Callable[[], dict[str, float]]
"""Gives figures by name, all in their own units."""


@dataclass(frozen=True, slots=True)
class Side:
    """One part of the benchmark: ours, and the peer or the machine's limit."""

    ours: Measure
    theirs: Measure | None = None
    other: str = ""


class OurSide:
    """Our engine. One process keeps it loaded for all that is not measured afresh."""

    def __init__(self, model: Path, threads: int, stack: ExitStack) -> None:
        self._model = model
        self._threads = threads
        self._stack = stack
        self.hello: dict[str, Any] = {}
        """What the latest of our processes said of itself: kernels, kv_bytes, ..."""

    @cached_property
    def engine(self) -> Child:
        """The process that stays, started when it is first wanted."""
        return self._stack.enter_context(self._fresh())

    def decode(self) -> dict[str, float]:
        """Tokens/s."""
        return {"decode": self.engine.ask("decode")["tokens_per_second"]}

    def prefill(self) -> dict[str, float]:
        """Tokens/s."""
        return {"prefill": self.engine.ask("prefill")["tokens_per_second"]}

    def load(self) -> dict[str, float]:
        """Seconds, of a fresh process."""
        with self._fresh() as child:
            return {"load": child.hello["load_seconds"], "start": child.start_seconds}

    def memory(self) -> dict[str, float]:
        """MB, of a fresh process."""
        with self._fresh() as child:
            sizes = child.ask("memory")
        return {"rss": sizes["resident_bytes"] / 1e6, "rss_peak": sizes["peak_bytes"] / 1e6}

    def profile(self) -> dict[str, Any]:
        """Microseconds of the parts of a decode step, of a fresh process."""
        with self._fresh() as child:
            return child.ask("profile")

    def _fresh(self) -> Child:
        child = Child("benchmarks.cpu_engine", str(self._model), str(self._threads), threads=self._threads)
        self.hello = child.hello
        return child


class Sides:
    """Both sides of every part, for one run; what they start ends with the stack."""

    def __init__(
        self, file: GGUFFile, threads: int, stack: ExitStack, bench: Path | None, server: Path | None
    ) -> None:
        """`bench` and `server`: llama.cpp's programs. Raises `PeerError` for one that cannot be run."""
        self.ours = OurSide(file.path, threads, stack)
        self.bench = None if bench is None else LlamaBench(bench, file.path, threads)
        self._server = None if server is None else runnable(server)
        self._model = file.path
        self._threads = threads
        self._stack = stack
        self._work = Work.of(file)

    @property
    def names(self) -> tuple[str, ...]:
        """The parts that can be measured."""
        return tuple(name for name in PARTS if name != "batch8" or self._server is not None)

    def of(self, part: str) -> Side:
        """The sides of a part; starts what it needs. Raises what starting it raises."""
        match part:
            case "batch8":
                return self._batch()
            case "busy":
                return self._busy()
            case "load" | "rss":
                return self._fresh(part)
            case _:
                return self._loaded(part)

    def _loaded(self, part: str) -> Side:
        ours = self.ours.decode if part == "decode" else self.ours.prefill
        if self.bench is not None:
            return Side(ours, self.bench.decode if part == "decode" else self.bench.prefill, "peer")
        limits = Limits(self._work, self._limits)
        return Side(ours, limits.decode if part == "decode" else limits.prefill, "limit")

    def _fresh(self, part: str) -> Side:
        ours = self.ours.load if part == "load" else self.ours.memory
        if self.bench is None:
            return Side(ours)
        return Side(ours, self.bench.load if part == "load" else self.bench.memory, "peer")

    def _busy(self) -> Side:
        ours = _beside_busy_core(self.ours.decode)
        return Side(ours) if self.bench is None else Side(ours, _beside_busy_core(self.bench.decode), "peer")

    def _batch(self) -> Side:
        assert self._server is not None, "only then is it a part"
        ours = self._stack.enter_context(our_server(self._model, self._threads))
        theirs = self._stack.enter_context(llama_server(self._server, self._model, self._threads))
        return Side(ours.streams, theirs.streams, "peer")

    @cached_property
    def _limits(self) -> Child:
        return self._stack.enter_context(
            Child("benchmarks.limits", str(self._threads), threads=self._threads)
        )


def _beside_busy_core(decode: Measure) -> Measure:
    def busy() -> dict[str, float]:
        with busy_core():
            return {"busy": decode()["decode"]}

    return busy
