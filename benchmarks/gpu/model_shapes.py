"""Models that `benchmarks.gpu` can make of random numbers: their shapes, and the types of their matrices."""

from collections.abc import Mapping

from engine.architectures import LlamaConfig
from engine.architectures.rope_config import RopeConfig
from engine.gguf import GGMLType


def _llama(
    *, vocab: int, layers: int, width: int, feed_forward: int, heads: int, kv_heads: int, base: float
) -> LlamaConfig:
    dim = width // heads
    return LlamaConfig(
        vocab_size=vocab,
        layers=layers,
        width=width,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=kv_heads,
        key_dim=dim,
        value_dim=dim,
        epsilon=1e-5,
        trained_context=8192,
        rope=RopeConfig(dim, base),
    )


SHAPES: Mapping[str, LlamaConfig] = {
    "llama2-7b": _llama(
        vocab=32000, layers=32, width=4096, feed_forward=11008, heads=32, kv_heads=32, base=10000.0
    ),
    "llama3-8b": _llama(
        vocab=128256, layers=32, width=4096, feed_forward=14336, heads=32, kv_heads=8, base=500000.0
    ),
    "tiny": _llama(vocab=64, layers=1, width=256, feed_forward=256, heads=4, kv_heads=2, base=10000.0),
}
"""By the names of `--shape`. `tiny` is for a look at the command itself; its figures mean nothing."""


def q4_k_m(name: str, layers: int) -> GGMLType:
    """The type of a matrix in a file of Q4_K_M with so many layers, as llama.cpp's quantiser chooses it.

    `name`: the tensor's, without its `.weight`. Values and the second matrix of the feed-forward network get
    Q6_K in the first eighth of the layers, the last eighth and every third between; the output always.
    """
    block, _, part = name.rpartition(".")
    if name == "output" or (part in ("attn_v", "ffn_down") and _gets_more_bits(int(block[4:]), layers)):
        return GGMLType.Q6_K
    return GGMLType.Q4_K


def _gets_more_bits(layer: int, layers: int) -> bool:
    """llama.cpp's rule `use_more_bits`."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
