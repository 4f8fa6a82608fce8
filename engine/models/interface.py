"""What the engine asks of a model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from engine.batch import Batch
from engine.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What a model keeps of each token, in each layer."""

    layers: int
    kv_heads: int
    key_dim: int
    value_dim: int

    def bytes_per_token(self, element_size: int) -> int:
        """Bytes of one token's keys and values in all layers."""
        return self.layers * self.kv_heads * (self.key_dim + self.value_dim) * element_size


class Model(ABC):
    """A loaded model: weights in their kernels' form, and the way through them."""

    cache_shape: CacheShape

    @abstractmethod
    def __call__(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        """Run the batch, writing its keys and values; logits float32 [n, vocab] of the wanted rows."""
