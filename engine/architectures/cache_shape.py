"""What a model keeps of its context."""

from dataclasses import dataclass


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
