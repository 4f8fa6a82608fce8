"""Sequences that a model reads and continues: batches, cache and runner are the engine's own."""

import random
from collections.abc import Sequence

import torch

from benchmarks.gpu.random_model import RandomLoader, random_model
from benchmarks.gpu.settings import Settings, Sizes
from benchmarks.gpu.stopwatch import Stopwatch, stopwatch
from engine.batch import Batch
from engine.batch_builder import batch_builder
from engine.block_manager import BlockManager
from engine.cuda_graphs import CudaGraphs
from engine.kernels import Drawing
from engine.kernels.cuda import CudaKernels
from engine.kv_cache import KVCache
from engine.loading import allocate_cache
from engine.model_runner import ModelRunner
from engine.models import Model
from engine.native.shortlist import Tail
from engine.plan import Chunk
from engine.sequence import Sequence as EngineSequence
from engine.types import GenerationRequest, TokenPrompt


class Bench:
    """A random model on a device with a cache, and the sizes of what is measured on it."""

    def __init__(self, settings: Settings, *, layers: int | None = None, rank: int = 0) -> None:
        """`layers`: in place of the shape's own; `rank`: of theta, which is off at first.

        Raises `ConfigError` where the memory is short of the cache.
        """
        self.watch: Stopwatch = stopwatch(torch.device(settings.device))
        self.sizes: Sizes = settings.sizes
        config = settings.config_of(layers)
        made = random_model(config, CudaKernels(self.watch.device), self.sizes.positions, rank)
        self.model: Model = made[0]
        self.loader: RandomLoader = made[1]
        if self.model.star is not None:
            self.model.star.enable(False)
        self.vocab = config.vocab_size
        self.cache: KVCache = allocate_cache(self.model.cache_shape, self.sizes.slots, self.model.kernels)
        self.cache.keys.zero_()
        self.cache.values.zero_()
        self.eager = ModelRunner(self.model, self.cache)

    def recorded(self, most: int) -> ModelRunner:
        """A runner with recordings of batches of up to `most` rows, theta as it counts now."""
        pages = self.sizes.positions // self.sizes.block
        graphs = CudaGraphs(
            self.model,
            self.cache,
            page_size=self.sizes.block,
            pages=pages,
            most=most,
            recorder=self.watch.recorder(),
        )
        runner = ModelRunner(self.model, self.cache, graphs)
        runner.record()
        return runner


_GREEDY = Drawing(1, Tail(), 0.0)


class Streams:
    """Some sequences with random prompts of one length, in one bench's cache; one such group at a time.

    They can go back to the end of their prompts, so that every measurement starts from the same context.
    """

    def __init__(self, bench: Bench, count: int, prompt: int) -> None:
        """`prompt`: tokens."""
        rng = random.Random(count)
        sizes = bench.sizes
        self._bench = bench
        self._prompt = prompt
        self._blocks = BlockManager(sizes.slots // sizes.block, sizes.block)
        self._builder = batch_builder(bench.model.kernels, sizes.block)
        self._sequences = [
            EngineSequence.from_request(
                GenerationRequest(
                    str(number), TokenPrompt(tuple(rng.randrange(bench.vocab) for _ in range(prompt))), 1
                )
            )
            for number in range(count)
        ]

    def read(self, runner: ModelRunner, chunk: int | None = None) -> None:
        """Compute all prompts from their beginnings, one after the other, up to a first token of each.

        `chunk`: tokens of one batch; None: whole prompts.
        """
        for sequence in self._sequences:
            del sequence.tokens[self._prompt :]
            sequence.computed = 0
            while len(sequence.tokens) == self._prompt:
                self._advance(runner, [sequence], chunk or self._prompt)

    def rewind(self) -> None:
        """Forget all tokens behind the first one after the prompt."""
        for sequence in self._sequences:
            del sequence.tokens[self._prompt + 1 :]
            sequence.computed = self._prompt

    def decode(self, runner: ModelRunner, steps: int) -> None:
        """Continue each sequence by so many tokens, greedily; each step waits for its tokens."""
        for _ in range(steps):
            self._advance(runner, self._sequences, 1)

    def next_batch(self) -> Batch:
        """The batch that the next step of decoding would run; the sequences stay where they are."""
        return self._builder.build(self._plan(self._sequences, 1))

    def _plan(self, sequences: Sequence[EngineSequence], most: int) -> list[Chunk]:
        plan = []
        for sequence in sequences:
            count = min(sequence.remaining, most)
            assert self._blocks.grow(sequence, sequence.computed + count), "the cache has room for all"
            plan.append(Chunk(sequence, sequence.computed, count))
        return plan

    def _advance(self, runner: ModelRunner, sequences: Sequence[EngineSequence], most: int) -> None:
        plan = self._plan(sequences, most)
        batch = self._builder.build(plan)
        caught_up = [chunk.sequence for chunk in plan if chunk.completes]
        tokens: list[int] = []
        if caught_up:
            tokens = runner.draw(batch, [_GREEDY] * len(caught_up))[1].tolist()
        else:
            runner.run(batch)
        for chunk in plan:
            chunk.sequence.advance(chunk.count)
        for sequence, token in zip(caught_up, tokens, strict=True):
            sequence.tokens.append(token)
