"""What the operations of a model compute with. Free of how."""

from dataclasses import dataclass

import torch

from engine.kernels.weight import Weight
from engine.native.shortlist import Tail


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Root mean square normalisation: a weight float32 [n], and what is added to the mean square."""

    weight: torch.Tensor
    epsilon: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a token is drawn: from the `cut` best of a row, behind the tail, by a random number u in [0, 1)."""

    cut: int
    tail: Tail
    u: float


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """Cosines and sines by which pairs of a head are turned, float32 [positions, pairs]."""

    cos: torch.Tensor
    sin: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SelfAttention:
    """x + out(attention(norm(x))): causal, grouped queries, rotary embedding of neighbouring pairs.

    Query heads are a multiple of KV heads; query head h reads KV head h // (heads // kv_heads). Scores are
    scaled by key_dim^-0.5.
    """

    norm: Norm
    q: Weight
    k: Weight
    v: Weight
    out: Weight
    rotation: Rotation
    cache_layer: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True, eq=False)
class FeedForward:
    """x + down(silu(gate(norm(x))) * up(norm(x)))."""

    norm: Norm
    gate: Weight
    up: Weight
    down: Weight
