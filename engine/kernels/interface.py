"""What a set of kernels offers to the models."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch

from engine.batch import Batch
from engine.gguf import GGMLType
from engine.kernels.operands import Draws, FeedForward, Norm, SelfAttention
from engine.kernels.weight import Weight
from engine.kv_cache import CacheFormat, KVCache

Layers = tuple[SelfAttention | FeedForward, ...]


def nothing() -> None:
    """Do nothing."""


class Kernels(ABC):
    """One implementation of every operation, on one device.

    Activations are float32 tensors [T, ...], one row a token. Every operation treats rows alike and
    apart from each other.
    """

    name: str
    device: torch.device
    cache_dtype: torch.dtype
    """How keys and values lie in the KV cache, where it holds floats."""
    cache_format: CacheFormat = CacheFormat.F16
    paged: bool = False
    """Whether batches say where contexts lie by `pages`, not by `spans`."""
    compiled_for: tuple[int, ...] = ()
    """Rows of batches that each have code of their own, which is compiled at its first use."""
    draws: bool = False
    """Whether they draw tokens, too; if not, logits come to the processor."""

    @property
    def place(self) -> str:
        """The device, or of several each with its layers, as `EngineConfig.device` names them."""
        return str(self.device)

    @property
    @abstractmethod
    def threads(self) -> int:
        """Threads of the processor that compute."""

    @abstractmethod
    def pack(
        self,
        data: np.ndarray,
        ggml_type: GGMLType,
        shape: tuple[int, int],
        bias: torch.Tensor | None = None,
    ) -> Weight:
        """Take over a matrix of the file. `data`: its bytes, uint8, read-only and kept alive by use.

        May return before the work is done: until then the matrix is slower to use.
        """

    def settle(self) -> None:  # noqa: B027 -- nothing to wait for unless work is put off
        """Wait until all matrices are in their form."""

    def when_settled(self, then: Callable[[], None], meanwhile: Callable[[], None] = nothing) -> None:
        """Do something as soon as no matrix needs its file any more: now, or in a later call.

        Until then, do something else at the end of each call: an error that it raises is the call's.
        """
        then()

    @abstractmethod
    def linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        """The product A x of each row, or A * x, plus the bias: x [T, n], behind a norm if any, to [T, m]."""

    @abstractmethod
    def embed(self, ids: torch.Tensor, weight: Weight) -> torch.Tensor:
        """Rows of the matrix (vocab, n) for ids [T]: [T, n]."""

    @abstractmethod
    def forward(
        self,
        x: torch.Tensor,
        layers: Layers,
        batch: Batch,
        cache: KVCache | None,
    ) -> torch.Tensor:
        """The layers in turn, x [T, width] to [T, width]; x itself may be overwritten.

        Keys and values go to the cache. Without one the batch must be a whole text (`Batch.of_one`).
        """

    def draw(self, logits: torch.Tensor, draws: Draws) -> torch.Tensor:
        """A token for each row of logits, float32 [n, vocab], which are left alone: int64 [n] on the device.

        -1 where all tokens are excluded. Nobody waits for the device, so that this can be recorded.

        Only where `draws` says so.
        """
        raise NotImplementedError
