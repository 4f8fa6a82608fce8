"""The llama architecture: Llama 1 to 3, Mistral, SmolLM2, TinyLlama and their relatives."""

import torch
import torch.nn.functional as F

from engine.architectures import LlamaConfig
from engine.kernels import FeedForward, Rotation, SelfAttention
from engine.layers import rotation
from engine.models.interface import Model
from engine.models.loader import Loader


class Llama(Model):
    """Pre-norm transformer with grouped-query attention and a gated feed-forward network."""

    def __init__(self, config: LlamaConfig, load: Loader, positions: int) -> None:
        """`positions`: the context length that the rotation is prepared for."""
        self.cache_shape = config.cache_shape
        self.kernels = load.kernels
        self._embedding = load.matrix("token_embd")
        divisors = load.optional_vector("rope_freqs.weight")
        turn = rotation(config.rope, positions, load.kernels.device, divisors)
        self.layers = tuple(
            layer for number in range(config.layers) for layer in _block(config, load, number, turn)
        )
        self._norm = load.norm("output_norm", config.epsilon)
        # Without an output matrix of its own the model speaks through its embedding.
        self._output = load.matrix("output" if load.has("output") else "token_embd")
        self.star = load.star
        self.weights = load.weights

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.kernels.embed(ids, self._embedding)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernels.linear(x, self._output, self._norm)

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self._norm.weight, self._norm.epsilon)


def _block(
    config: LlamaConfig, load: Loader, number: int, turn: Rotation
) -> tuple[SelfAttention, FeedForward]:
    at = f"blk.{number}"
    attention = SelfAttention(
        norm=load.norm(f"{at}.attn_norm", config.epsilon),
        q=load.matrix(f"{at}.attn_q"),
        k=load.matrix(f"{at}.attn_k"),
        v=load.matrix(f"{at}.attn_v"),
        out=load.matrix(f"{at}.attn_output"),
        rotation=turn,
        cache_layer=number,
        key_dim=config.key_dim,
        value_dim=config.value_dim,
    )
    feed_forward = FeedForward(
        norm=load.norm(f"{at}.ffn_norm", config.epsilon),
        gate=load.matrix(f"{at}.ffn_gate"),
        up=load.matrix(f"{at}.ffn_up"),
        down=load.matrix(f"{at}.ffn_down"),
    )
    return attention, feed_forward
