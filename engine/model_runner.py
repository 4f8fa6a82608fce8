"""Runs the model on batches, against one KV cache."""

import torch

from engine.batch import Batch
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
