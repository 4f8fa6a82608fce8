"""Grouped-query attention over the paged KV cache."""

import torch

from engine.batch import Batch
from engine.kernels import Kernels
from engine.kv_cache import KVCache


class Attention:
    """Rotates queries and keys, stores keys and values, attends. `layer` is its place in the cache."""

    def __init__(self, kernels: Kernels, layer: int, key_dim: int, value_dim: int) -> None:
        self._kernels = kernels
        self._layer = layer
        self._key_dim = key_dim
        self._value_dim = value_dim
        self._scale = key_dim**-0.5

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        batch: Batch,
        cache: KVCache | None,
    ) -> torch.Tensor:
        """q [T, heads * key_dim], k, v [T, kv_heads * dim] to [T, heads * value_dim].

        Without a cache the batch itself is the context, its rows the slots.
        """
        rows = q.shape[0]
        q = self._kernels.rope(q.view(rows, -1, self._key_dim), *angles)
        k = self._kernels.rope(k.view(rows, -1, self._key_dim), *angles)
        v = v.view(rows, -1, self._value_dim)
        keys, values = k, v
        if cache is not None:
            keys, values = cache.keys[self._layer], cache.values[self._layer]
            self._kernels.store_kv(keys, values, k, v, batch.slots)
        return self._kernels.attention(q, keys, values, batch, self._scale).flatten(1)
