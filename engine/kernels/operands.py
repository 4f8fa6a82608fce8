"""What the operations of a model compute with. Free of how."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from engine.kernels.weight import Weight
from engine.native.shortlist import Tail
from engine.transfer import sent


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Root mean square normalisation: a weight float32 [n], and what is added to the mean square."""

    weight: torch.Tensor
    epsilon: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a token is drawn: from the `cut` best of a row, behind the tail, by a random number u in [0, 1).

    A cut is `MOST_WANTED` at the most; 1 is greedy.
    """

    cut: int
    tail: Tail
    u: float


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """How B rows are drawn from, on their device.

    `table`: float64 [5, B], the rows' cuts, top-p, distances, temperatures and u. `most`: no cut counts
    beyond it.
    """

    table: torch.Tensor
    most: int

    @classmethod
    def of(cls, drawings: Sequence[Drawing], device: torch.device) -> Self:
        """The same on the device, in one copy that nobody waits for; at least one."""
        told = [(d.cut, d.tail.top_p, d.tail.distance, d.tail.temperature, d.u) for d in drawings]
        table = torch.tensor(told, dtype=torch.float64).T.contiguous()
        return cls(sent(table, device), max(drawing.cut for drawing in drawings))


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
