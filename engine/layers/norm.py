"""Root mean square normalisation."""

import torch

from engine.kernels import Kernels


class RMSNorm:
    """x over the root of its mean square plus epsilon, times a weight [n]."""

    def __init__(self, kernels: Kernels, weight: torch.Tensor, epsilon: float) -> None:
        self._kernels = kernels
        self.weight = weight
        self.epsilon = epsilon

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, n] to [T, n]."""
        return self._kernels.rms_norm(x, self.weight, self.epsilon)
