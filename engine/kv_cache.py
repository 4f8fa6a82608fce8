"""The tensors of the paged KV cache. Which block belongs to whom, `engine.block_manager` knows."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers.

    `keys`, `values`: [layers, slots, kv_heads, head_dim]; slot = block * block_size + offset. The two
    head dimensions may differ. Memory that was never written is not touched, so that on a CPU a
    generous cache costs only what is used.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def allocate(
        cls,
        *,
        layers: int,
        slots: int,
        kv_heads: int,
        key_dim: int,
        value_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "KVCache":
        """An empty cache of `slots` tokens."""
        return cls(
            torch.empty(layers, slots, kv_heads, key_dim, dtype=dtype, device=device),
            torch.empty(layers, slots, kv_heads, value_dim, dtype=dtype, device=device),
        )

    def move(self, layer: int, sources: torch.Tensor, targets: torch.Tensor, turns: torch.Tensor) -> None:
        """Copy n tokens of one layer from slots to slots, int64 [n] each, their keys turned on the way.

        `turns`, complex64 [n, pairs]: what neighbouring components of a key, read as complex numbers, are
        multiplied by; components behind the pairs stay. All sources are read before a target is written.
        """
        keys, values = self.keys[layer], self.values[layer]
        k, v = keys[sources].float(), values[sources]
        turned = 2 * turns.shape[1]
        pairs = torch.view_as_complex(k[..., :turned].reshape(*k.shape[:-1], -1, 2))
        k[..., :turned] = torch.view_as_real(pairs * turns[:, None]).flatten(-2)
        keys.index_copy_(0, targets, k.to(keys.dtype))
        values.index_copy_(0, targets, v)
