"""Layers of a transformer: weights and settings around the kernels' operations."""

from engine.layers.attention import Attention
from engine.layers.embedding import Embedding
from engine.layers.linear import PackedLinear
from engine.layers.norm import RMSNorm
from engine.layers.rope import Rope
from engine.layers.star_linear import Star, StarLinear

__all__ = ["Attention", "Embedding", "PackedLinear", "RMSNorm", "Rope", "Star", "StarLinear"]
