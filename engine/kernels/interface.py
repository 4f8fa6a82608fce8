"""What a set of kernels offers to the layers."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from engine.batch import Batch
from engine.gguf import GGMLType


class Weight(ABC):
    """A matrix in the form that its kernel set computes with; made by `Kernels.pack`.

    `shape`: (m, n), rows and columns of the matrix.
    """

    shape: tuple[int, int]


class Kernels(ABC):
    """One implementation of every operation, on one device.

    Activations are `dtype` tensors [T, ...], one row a token. Every operation treats rows alike and
    apart from each other.
    """

    name: str
    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def pack(self, data: np.ndarray, ggml_type: GGMLType, shape: tuple[int, int]) -> Weight:
        """Take over a matrix of the file. `data`: its bytes, uint8, read-only and kept alive by use."""

    @abstractmethod
    def linear(self, x: torch.Tensor, weight: Weight, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x [T, n] times the transpose of weight (m, n), plus bias [m]: [T, m]."""

    @abstractmethod
    def star_linear(
        self,
        x: torch.Tensor,
        weight: Weight,
        bias: torch.Tensor | None,
        u: torch.Tensor,
        v: torch.Tensor,
        half_gamma: torch.Tensor,
    ) -> torch.Tensor:
        """The star product: `linear` plus half_gamma (x v^T) u, for u [r, m], v [r, n]: [T, m].

        `u` holds the scales of theta already. `half_gamma`, 0-dimensional, is read at each call.
        """

    @abstractmethod
    def embed(self, ids: torch.Tensor, weight: Weight) -> torch.Tensor:
        """Rows of the matrix (vocab, n) for ids [T]: [T, n]."""

    @abstractmethod
    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """x [T, n] over the root of its mean square, times weight [n]."""

    @abstractmethod
    def rope(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Rotate neighbouring pairs of x [T, heads, d] by the angles of cos, sin [T, r/2], r <= d."""

    @abstractmethod
    def store_kv(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        slots: torch.Tensor,
    ) -> None:
        """Write k, v [T, kv_heads, d] to the slots [T] of one layer's keys, values [slots, kv_heads, d]."""

    @abstractmethod
    def attention(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: Batch, scale: float
    ) -> torch.Tensor:
        """Causal attention of q [T, heads, d] over each row's own context in one layer's cache.

        heads is a multiple of kv_heads; query head h reads KV head h // (heads // kv_heads).
        Returns [T, heads, d of the values].
        """

    @abstractmethod
    def silu_mul(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up, all [T, n]."""
