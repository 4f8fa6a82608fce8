"""Runs the model on batches, against one KV cache."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import Batch
from engine.context_shift import Move
from engine.kernels import Rotation, SelfAttention
from engine.kv_cache import KVCache
from engine.models import Model


class ModelRunner:
    """A model and the cache that it writes to."""

    def __init__(self, model: Model, cache: KVCache) -> None:
        self._model = model
        self._cache = cache

    @torch.inference_mode()
    def run(self, batch: Batch) -> torch.Tensor:
        """Logits float32 [n, vocab] of the batch's wanted rows; n may be 0."""
        return self._model(batch, self._cache)

    @torch.inference_mode()
    def states(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Hidden states behind the final norm, float32 [n, width], of the batch's wanted rows; n may be 0."""
        states: npt.NDArray[np.float32] = self._model.states(batch, self._cache).cpu().numpy()
        return states

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
        return torch.from_numpy(np.concatenate(parts)).to(self._cache.keys.device)


def _turns_back(rotation: Rotation, distances: torch.Tensor) -> torch.Tensor:
    """What turns keys to positions that are lower by distances, int64 [n]: complex64 [n, pairs].

    The tables hold YaRN's magnitude, which the keys have already; position 0 shows it, for its cosine is 1.
    A magnitude of 0 has made all keys 0, turned or not.
    """
    magnitude = float(rotation.cos[0, 0]) or 1.0
    return torch.complex(rotation.cos[distances], -rotation.sin[distances]) / magnitude
