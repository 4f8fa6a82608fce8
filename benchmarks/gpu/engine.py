"""The whole engine with a random model: scheduler, recordings, draws and text, as the server runs them."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.random_model import random_model
from benchmarks.gpu.settings import Figures, Settings
from benchmarks.gpu.stopwatch import stopwatch
from engine.config import EngineConfig
from engine.engine import Engine
from engine.kernels.cuda import CudaKernels
from engine.tokenizer import Tokenizer
from engine.types import GenerationRequest, ModelInfo, SamplingParams, TokenPrompt

_WARM_UP = 2
"""Generations that do not count, for each number of streams."""


def engine_speed(settings: Settings) -> Iterator[Figures]:
    """Tokens/s of `Engine.step` for each number of streams, and seconds from a request to its first token."""
    sizes = settings.sizes
    device = stopwatch(torch.device(settings.device)).device
    model, loader = random_model(settings.config, CudaKernels(device), sizes.positions)
    config = EngineConfig(
        model=Path(settings.shape),
        context_length=sizes.positions,
        device=settings.device,
        max_sequences=max(sizes.streams),
        block_size=sizes.block,
        kv_tokens=sizes.slots,
        context_shift=False,
    )
    info = ModelInfo(
        name=settings.shape,
        architecture="llama",
        quantization="Q4_K",
        parameters=loader.flops // 2,
        context_length=sizes.positions,
        trained_context_length=sizes.positions,
        vocab_size=settings.config.vocab_size,
        chat_template=None,
        bos_token="",
        eos_token="",
    )
    engine = Engine(config, model, _tokenizer(info.vocab_size), info)
    driver = _Driver(engine)
    for count in sizes.streams:
        for _ in range(_WARM_UP):
            driver.run(count, sizes.context, 2)
        first, rest, tokens = driver.run(count, sizes.context, 1 + sizes.steps)
        yield {
            "engine": {
                "decode": {
                    str(count): {
                        "tokens_per_second": tokens / rest,
                        "step_seconds": rest / sizes.steps,
                        "first_tokens_seconds": first,
                    }
                }
            }
        }
    for length in sizes.prompts:
        driver.run(1, length, 1)
        first, *_ = driver.run(1, length, 1)
        yield {
            "engine": {
                "prefill": {str(length): {"tokens_per_second": length / first, "first_token_seconds": first}}
            }
        }


def _tokenizer(size: int) -> Tokenizer:
    """One with so many words."""
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [f"w{number}" for number in range(size)],
        "tokenizer.ggml.merges": [],
    }
    return Tokenizer.from_metadata(metadata)


class _Driver:
    """Gives an engine requests with prompts that it has not seen, and times its steps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rng = random.Random(0)

    def run(self, count: int, prompt: int, new: int) -> tuple[float, float, int]:
        """Seconds until each of `count` requests has a token, then seconds and tokens of `new` - 1 steps.

        While prompts are read, requests whose own is read go on; in the second part all decode.
        """
        start = time.perf_counter()
        for number in range(count):
            self._add(str(number), prompt, new + count)
        made = dict.fromkeys(map(str, range(count)), 0)
        while min(made.values()) == 0:
            self._step(made)
        before, first = sum(made.values()), time.perf_counter()
        for _ in range(new - 1):
            self._step(made)
        tokens, stop = sum(made.values()) - before, time.perf_counter()
        for name in made:
            self._engine.abort(name)
        self._engine.step()
        return first - start, stop - first, tokens

    def _step(self, made: dict[str, int]) -> None:
        for event in self._engine.step():
            made[event.request_id] += len(event.token_ids)

    def _add(self, name: str, prompt: int, new: int) -> None:
        ids = tuple(self._rng.randrange(self._engine.info.vocab_size) for _ in range(prompt))
        request = GenerationRequest(
            name, TokenPrompt(ids), new, SamplingParams(temperature=0.0), ignore_eos=True
        )
        self._engine.add(self._engine.prepare(request))
