"""The KV cache of a model whose layers are on several devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from engine.kv_cache import CacheLayer, KVCache


@dataclass(frozen=True, slots=True)
class SplitCache(KVCache):
    """One cache for the layers of each stage, all with the same slots.

    Layers are numbered through all parts; `keys`, `values` and the scales are those of the first part alone.
    """

    parts: tuple[KVCache, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[KVCache]) -> Self:
        """All of these as one, in the order of the layers; at least one."""
        first = parts[0]
        return cls(first.keys, first.values, first.format, first.key_scales, first.value_scales, tuple(parts))

    def layer(self, number: int) -> CacheLayer:
        """One layer's part."""
        part, own = self._find(number)
        return part.layer(own)

    def move(self, layer: int, sources: torch.Tensor, targets: torch.Tensor, turns: torch.Tensor) -> None:
        """As `KVCache.move`, on the layer's device; the operands may be on another one."""
        part, own = self._find(layer)
        part.move(own, *(operand.to(part.keys.device) for operand in (sources, targets, turns)))

    def _find(self, number: int) -> tuple[KVCache, int]:
        """The part that a layer is in, and its number there. Raises `IndexError` beyond the last."""
        for part in self.parts:
            if number < len(part.keys):
                return part, number
            number -= len(part.keys)
        raise IndexError("there is no such layer")
