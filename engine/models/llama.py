"""The llama architecture: Llama 1 to 3, Mistral, SmolLM2, TinyLlama and their relatives."""

import torch

from engine.architectures import LlamaConfig
from engine.batch import Batch
from engine.kv_cache import KVCache
from engine.layers import Attention, Rope
from engine.models.interface import Model
from engine.models.loader import Loader


class Llama(Model):
    """Pre-norm transformer with grouped-query attention and a gated feed-forward network."""

    def __init__(self, config: LlamaConfig, load: Loader, positions: int) -> None:
        """`positions`: the context length that the rotation is prepared for."""
        self.cache_shape = config.cache_shape
        self.kernels = load.kernels
        self._embedding = load.embedding("token_embd")
        divisors = load.optional_vector("rope_freqs.weight")
        self._rope = Rope(config.rope, positions, load.kernels.device, divisors)
        self._blocks = [_Block(config, load, number) for number in range(config.layers)]
        self._norm = load.norm("output_norm", config.epsilon)
        # Without an output matrix of its own the model speaks through its embedding.
        self._output = load.linear("output" if load.has("output") else "token_embd")
        self.star = load.star

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._embedding(ids)

    def block(self, number: int, x: torch.Tensor, batch: Batch, cache: KVCache | None) -> torch.Tensor:
        return self._blocks[number](x, self._rope.at(batch.positions), batch, cache)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self._output(self._norm(x)).float()


class _Block:
    """Attention and feed-forward network, each behind a norm and beside a residual."""

    def __init__(self, config: LlamaConfig, load: Loader, number: int) -> None:
        at = f"blk.{number}"
        self._kernels = load.kernels
        self._attention_norm = load.norm(f"{at}.attn_norm", config.epsilon)
        self._q = load.linear(f"{at}.attn_q")
        self._k = load.linear(f"{at}.attn_k")
        self._v = load.linear(f"{at}.attn_v")
        self._attention = Attention(load.kernels, number, config.key_dim, config.value_dim)
        self._out = load.linear(f"{at}.attn_output")
        self._ffn_norm = load.norm(f"{at}.ffn_norm", config.epsilon)
        self._gate = load.linear(f"{at}.ffn_gate")
        self._up = load.linear(f"{at}.ffn_up")
        self._down = load.linear(f"{at}.ffn_down")

    def __call__(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], batch: Batch, cache: KVCache | None
    ) -> torch.Tensor:
        h = self._attention_norm(x)
        x = x + self._out(self._attention(self._q(h), self._k(h), self._v(h), angles, batch, cache))
        h = self._ffn_norm(x)
        return x + self._down(self._kernels.silu_mul(self._gate(h), self._up(h)))
