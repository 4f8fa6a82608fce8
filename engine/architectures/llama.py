"""The llama architecture's settings and tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from engine.architectures.cache_shape import CacheShape
from engine.architectures.hyperparameters import Hyperparameters
from engine.architectures.rope_config import RopeConfig
from engine.errors import ModelFileError

_MAX_LAYERS = 1024
_MAX_WIDTH = 2**20
_MAX_HEAD = 2**14
"""Elements of a head; the largest in use have some hundreds."""


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Settings of a llama model, from the metadata keys below `llama.`."""

    vocab_size: int
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    epsilon: float
    trained_context: int
    rope: RopeConfig

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], vocab_size: int) -> Self:
        """Read and check the settings; raises `ModelFileError`. `vocab_size`: tokens in the file."""
        keys = Hyperparameters(metadata, "llama")
        if keys.integer("expert_count", 0, least=0) > 0:
            raise ModelFileError("mixture-of-experts models are not supported")
        width = keys.integer("embedding_length", most=_MAX_WIDTH)
        heads = keys.integer("attention.head_count", most=_MAX_WIDTH)
        kv_heads = keys.integer("attention.head_count_kv", heads, most=heads)
        if heads % kv_heads:
            raise ModelFileError(f"{heads} attention heads cannot share {kv_heads} key-value heads evenly")
        key_dim = keys.integer("attention.key_length", width // heads, most=_MAX_HEAD)
        return cls(
            vocab_size=vocab_size,
            layers=keys.integer("block_count", most=_MAX_LAYERS),
            width=width,
            feed_forward=keys.integer("feed_forward_length", most=_MAX_WIDTH),
            heads=heads,
            kv_heads=kv_heads,
            key_dim=key_dim,
            value_dim=keys.integer("attention.value_length", width // heads, most=_MAX_HEAD),
            epsilon=keys.number("attention.layer_norm_rms_epsilon", least=0, most=1),
            trained_context=keys.integer("context_length", most=2**31),
            rope=RopeConfig.read(keys, key_dim),
        )

    @property
    def cache_shape(self) -> CacheShape:
        """What the model keeps of its context."""
        return CacheShape(self.layers, self.kv_heads, self.key_dim, self.value_dim)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor that the file must hold."""
        queries, keys = self.heads * self.key_dim, self.kv_heads * self.key_dim
        values = self.kv_heads * self.value_dim
        yield "token_embd.weight", (self.vocab_size, self.width)
        for number in range(self.layers):
            at = f"blk.{number}"
            yield f"{at}.attn_norm.weight", (self.width,)
            yield f"{at}.attn_q.weight", (queries, self.width)
            yield f"{at}.attn_k.weight", (keys, self.width)
            yield f"{at}.attn_v.weight", (values, self.width)
            yield f"{at}.attn_output.weight", (self.width, self.heads * self.value_dim)
            yield f"{at}.ffn_norm.weight", (self.width,)
            yield f"{at}.ffn_gate.weight", (self.feed_forward, self.width)
            yield f"{at}.ffn_up.weight", (self.feed_forward, self.width)
            yield f"{at}.ffn_down.weight", (self.width, self.feed_forward)
        yield "output_norm.weight", (self.width,)

    def optional_tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of the tensors that a file may hold beside them."""
        yield "output.weight", (self.vocab_size, self.width)
        yield "output.bias", (self.vocab_size,)
        yield "rope_freqs.weight", (self.rope.dimensions // 2,)
        for name, shape in self.tensors():
            if len(shape) == 2:
                yield name.removesuffix("weight") + "bias", shape[:1]
