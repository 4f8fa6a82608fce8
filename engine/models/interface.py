"""What the engine and the converter ask of a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch

from engine.architectures import CacheShape
from engine.batch import Batch
from engine.kernels import Kernels, Layers, Weight
from engine.kv_cache import KVCache
from engine.layers import Star


class Model(ABC):
    """A loaded model: weights in their kernels' form, and the way through them.

    `weights` are its matrices, by their names in the file without `.weight`. `kernels` are those that it
    computes with. `star` is its theta, None for a baseline model. `layers` are the two halves of each block
    in turn. With the reference kernels the three parts of the way, and `block` with `cache` None, are
    differentiable in theta's factors.
    """

    weights: Mapping[str, Weight]
    cache_shape: CacheShape
    kernels: Kernels
    star: Star | None
    layers: Layers

    @abstractmethod
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids [T] to the input of the first block, [T, width]."""

    @abstractmethod
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Output of the last block [n, width] to logits, float32 [n, vocab]."""

    @abstractmethod
    def normed(self, x: torch.Tensor) -> torch.Tensor:
        """Output of the last block [n, width] behind the final norm, where the output matrix takes it up."""

    def block(self, number: int, x: torch.Tensor, batch: Batch, cache: KVCache | None) -> torch.Tensor:
        """One block, [T, width] to [T, width]. Without a cache each row attends within the batch."""
        return self.kernels.forward(x, self.layers[2 * number : 2 * number + 2], batch, cache)

    def __call__(self, batch: Batch, cache: KVCache | None) -> torch.Tensor:
        """Run the batch, writing its keys and values; logits float32 [n, vocab] of the wanted rows.

        Without a cache the batch must be one whole text (`Batch.of_one`).
        """
        return self.logits(self.outputs(batch, cache))

    def states(self, batch: Batch, cache: KVCache | None) -> torch.Tensor:
        """The same run, but hidden states instead of logits: float32 [n, width], behind the final norm."""
        return self.normed(self.outputs(batch, cache))

    def damage(self) -> str | None:
        """What is wrong with the file's matrices, as far as it has been found while they were packed."""
        damaged = [f"{name}.weight" for name, weight in self.weights.items() if weight.damaged]
        return not_finite(damaged) if damaged else None

    def outputs(self, batch: Batch, cache: KVCache | None) -> torch.Tensor:
        """The same run, but what `logits` and `normed` take: float32 [n, width]."""
        x = self.kernels.forward(self.embed(batch.token_ids), self.layers, batch, cache)
        return x[batch.logit_rows]


def not_finite(tensors: list[str]) -> str:
    """What is wrong with these tensors, at least one."""
    more = f" and {len(tensors) - 1} more tensors" if len(tensors) > 1 else ""
    verb = "hold" if more else "holds"
    return (
        f"the tensor {tensors[0]}{more} {verb} values that are not finite: the file is damaged; "
        "download or copy it again"
    )
