"""Our side of `benchmarks.cpu`: a process with one loaded engine and nothing else.

python -m benchmarks.cpu_engine MODEL THREADS, then questions on stdin: decode, prefill, memory, profile.
"""

import random
import sys
import time
from pathlib import Path
from typing import Any

from engine.preparation import set_up_process

set_up_process()  # torch reads the environment when it is imported, by the next lines

from benchmarks.child import Answers, answer  # noqa: E402
from benchmarks.sizes import CONTEXT, NEW_TOKENS, PROMPT_TOKENS, RSS_NEW_TOKENS  # noqa: E402
from benchmarks.step_profile import profile_steps  # noqa: E402
from engine.config import EngineConfig  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.types import GenerationRequest, SamplingParams, TokenPrompt  # noqa: E402

_SHORT_PROMPT = 4
_WARM_UP_TOKENS = 8


class MeasuredEngine:
    """One engine, loaded when this is made, and its timed generations: greedy, batch of one.

    Every step is timed as the server would run it: scheduler, model, sampling, text. Prompts are random and
    new each time, so that no prefix of them is cached.
    """

    def __init__(self, model: Path, threads: int) -> None:
        self._rng = random.Random()
        start = time.perf_counter()
        config = EngineConfig(model=model, threads=threads, device="cpu", context_length=CONTEXT)
        self._engine = Engine.load(config)
        self._generate(prompt=1, new=1)
        self._load_seconds = time.perf_counter() - start
        self._engine.kernels.settle()
        self._threads = threads

    def hello(self) -> dict[str, Any]:
        """What was loaded, and how long that took until the first token behind a prompt of one token."""
        kernels, shape = self._engine.kernels, self._engine.model.cache_shape
        return {
            "load_seconds": self._load_seconds,
            "kernels": kernels.name,
            "threads": self._threads,
            "kv_bytes": CONTEXT * shape.bytes_per_token(kernels.cache_dtype.itemsize),
        }

    def decode(self) -> dict[str, Any]:
        """Tokens/s of tokens behind a short prompt and its first token, after a short generation untimed."""
        self._generate(prompt=_SHORT_PROMPT, new=_WARM_UP_TOKENS)
        _, seconds = self._generate(prompt=_SHORT_PROMPT, new=1 + NEW_TOKENS)
        return {"tokens_per_second": NEW_TOKENS / seconds}

    def prefill(self) -> dict[str, Any]:
        """Tokens/s from a prompt to its first token, after one such prompt untimed."""
        self._generate(prompt=PROMPT_TOKENS, new=1)
        seconds, _ = self._generate(prompt=PROMPT_TOKENS, new=1)
        return {"tokens_per_second": PROMPT_TOKENS / seconds}

    def memory(self) -> dict[str, Any]:
        """Bytes of this process that are resident after a prompt and some tokens, and at the most so far."""
        self._generate(prompt=PROMPT_TOKENS, new=RSS_NEW_TOKENS)
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        sizes = dict(line.split(":", 1) for line in status.splitlines())
        return {
            name: int(sizes[key].split()[0]) * 1024
            for name, key in (("resident_bytes", "VmRSS"), ("peak_bytes", "VmHWM"))
        }

    def profile(self) -> dict[str, Any]:
        """Microseconds that the parts of one decode step take, the median of the steps."""
        self._generate(prompt=_SHORT_PROMPT, new=_WARM_UP_TOKENS)
        self._add(_SHORT_PROMPT, 1 + NEW_TOKENS)
        self._engine.step()
        return profile_steps(self._engine, NEW_TOKENS)

    def _generate(self, prompt: int, new: int) -> tuple[float, float]:
        """Seconds to the first token, and from there to the last."""
        start = time.perf_counter()
        self._add(prompt, new)
        made = 0
        first = start
        while made < new:
            made += sum(len(event.token_ids) for event in self._engine.step())
            if made and first == start:
                first = time.perf_counter()
        return first - start, time.perf_counter() - first

    def _add(self, prompt: int, new: int) -> None:
        ids = tuple(self._rng.randrange(self._engine.info.vocab_size) for _ in range(prompt))
        request = GenerationRequest(
            "benchmark", TokenPrompt(ids), new, SamplingParams(temperature=0.0), ignore_eos=True
        )
        self._engine.add(self._engine.prepare(request))


def main() -> None:
    """Load the engine, then answer."""

    def ready() -> tuple[dict[str, Any], Answers]:
        engine = MeasuredEngine(Path(sys.argv[1]), int(sys.argv[2]))
        return engine.hello(), {
            "decode": engine.decode,
            "prefill": engine.prefill,
            "memory": engine.memory,
            "profile": engine.profile,
        }

    answer(ready)


if __name__ == "__main__":
    main()
