"""Runs the model on batches, against one KV cache."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from engine.batch import Batch, Pages
from engine.config import EngineConfig
from engine.context_shift import Move
from engine.cuda_graphs import CudaGraphs
from engine.device import make_current
from engine.kernels import Drawing, Draws, Rotation, SelfAttention
from engine.kv_cache import KVCache
from engine.loading import allocate_cache, cache_slots
from engine.models import Model
from engine.prompt_scores import Scores

_SCORED_ROWS = 16
"""Whose logits exist at a time, with their logarithms: 6 MB where the vocabulary is of 50,000 tokens."""

_logger = logging.getLogger(__name__)


class ModelRunner:
    """A model and the cache that it writes to."""

    def __init__(self, model: Model, cache: KVCache, graphs: CudaGraphs | None = None) -> None:
        """`graphs`: recorded steps of the same model and cache, where there are any."""
        self._model = model
        self._cache = cache
        self._graphs = graphs

    @classmethod
    def of(cls, config: EngineConfig, model: Model, context_length: int) -> Self:
        """One with a cache as the settings ask for. Raises `ConfigError` where the memory is short."""
        cache = allocate_cache(model.cache_shape, cache_slots(config, context_length), model.kernels)
        graphs = None
        if model.kernels.paged and model.kernels.device.type == "cuda":
            pages = -(-context_length // config.block_size)
            graphs = CudaGraphs(
                model, cache, page_size=config.block_size, pages=pages, most=config.max_sequences
            )
        runner = cls(model, cache, graphs)
        runner.compile(min(config.token_budget, context_length))
        runner.record()
        return runner

    @torch.inference_mode()
    def compile(self, most: int) -> None:
        """Run what is compiled at its first use, for up to `most` rows: no request is to wait for that.

        Writes to the first slots of the cache.
        """
        kernels = self._model.kernels
        sizes = [rows for rows in kernels.compiled_for if rows <= most]
        for number, rows in enumerate(sizes, start=1):
            _logger.info(
                "compiling kernels, %d of %d: minutes at the first start, seconds later", number, len(sizes)
            )
            ids = torch.zeros(rows, dtype=torch.int64, device=kernels.device)
            pages = Pages.of_one(rows, kernels.device)
            self._model(replace(Batch.of_one(ids, range(rows - 1, rows)), pages=pages), self._cache)

    @torch.inference_mode()
    def record(self) -> None:
        """Record anew what is recorded: theta has been switched or replaced."""
        if self._graphs is not None:
            make_current(self._model.kernels.device)
            self._graphs.record()

    @torch.inference_mode()
    def run(self, batch: Batch, *, recorded: bool = True) -> torch.Tensor:
        """Logits float32 [n, vocab] of the batch's wanted rows; n may be 0.

        `recorded`: whether recorded steps compute what is wanted.
        """
        # The thread may be another one than that which loaded the model.
        make_current(self._model.kernels.device)
        logits = self._graphs.run(batch) if recorded and self._graphs is not None else None
        return self._model(batch, self._cache) if logits is None else logits

    @torch.inference_mode()
    def draw(self, batch: Batch, drawings: Sequence[Drawing]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits as by `run`, and a token drawn from each row of them, int64 [n]; n > 0.

        Only for kernels that draw, and as they do it: -1 is no token, and nobody waits.
        """
        kernels = self._model.kernels
        make_current(kernels.device)
        drawn = None if self._graphs is None else self._graphs.draw(batch, drawings)
        if drawn is not None:
            return drawn
        logits = self._model(batch, self._cache)
        return logits, kernels.draw(logits, Draws.of(drawings, logits.device))

    @torch.inference_mode()
    def states(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Hidden states behind the final norm, float32 [n, width], of the batch's wanted rows; n may be 0."""
        make_current(self._model.kernels.device)
        states: npt.NDArray[np.float32] = self._model.states(batch, self._cache).cpu().numpy()
        return states

    @torch.inference_mode()
    def scores(self, batch: Batch, targets: Sequence[int], alternatives: int) -> Scores:
        """How likely the model finds a target behind each wanted row, and what it finds likeliest.

        There is one target for each row, at least one; 0 <= `alternatives` <= vocabulary. No more than
        `_SCORED_ROWS` rows of logits exist at a time.
        """
        make_current(self._model.kernels.device)
        outputs = self._model.outputs(batch, self._cache)
        device, count = outputs.device, len(targets)
        wanted = torch.tensor(targets, device=device)[:, None]
        # Made beforehand: small results that stay among large ones that go keep the heap from being reused.
        own = torch.empty(count, 1, device=device)
        ids = torch.empty(count, alternatives, dtype=torch.int64, device=device)
        likeliest = torch.empty(count, alternatives, device=device)
        for first in range(0, count, _SCORED_ROWS):
            rows = slice(first, first + _SCORED_ROWS)
            logprobs = F.log_softmax(self._model.logits(outputs[rows]), 1)
            torch.gather(logprobs, 1, wanted[rows], out=own[rows])
            torch.topk(logprobs, alternatives, 1, out=(likeliest[rows], ids[rows]))
        return Scores(own[:, 0].cpu().numpy(), ids.cpu().numpy(), likeliest.cpu().numpy())

    @torch.inference_mode()
    def move(self, moves: Sequence[Move]) -> None:
        """Copy keys and values in all layers as the moves of one plan say; at least one move.

        Each layer is read before it is written, so that a source may be a target. A layer's keys and values
        of all moved tokens, in float32, are the memory that this needs.
        """
        sources, targets, distances = (
            self._tensor([getattr(move, part) for move in moves])
            for part in ("sources", "targets", "distances")
        )
        for layer in self._model.layers:
            if isinstance(layer, SelfAttention):
                turns = _turns_back(layer.rotation, distances)
                self._cache.move(layer.cache_layer, sources, targets, turns)

    def _tensor(self, parts: list[npt.NDArray[np.int64]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self._model.kernels.device)


def _turns_back(rotation: Rotation, distances: torch.Tensor) -> torch.Tensor:
    """What turns keys to positions that are lower by distances, int64 [n]: complex64 [n, pairs].

    The tables hold YaRN's magnitude, which the keys have already; position 0 shows it, for its cosine is 1.
    A magnitude of 0 has made all keys 0, turned or not.
    """
    magnitude = float(rotation.cos[0, 0]) or 1.0
    return torch.complex(rotation.cos[distances], -rotation.sin[distances]) / magnitude
