"""The token embedding."""

import torch

from engine.kernels import Kernels, Weight


class Embedding:
    """Looks up rows of the packed matrix (vocab, n)."""

    def __init__(self, kernels: Kernels, weight: Weight) -> None:
        self._kernels = kernels
        self.weight = weight

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [T] to rows [T, n]."""
        return self._kernels.embed(ids, self.weight)
