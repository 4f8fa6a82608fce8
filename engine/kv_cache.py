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
