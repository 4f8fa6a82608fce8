"""A linear layer over a packed matrix."""

import torch

from engine.kernels import Kernels, Weight


class PackedLinear:
    """y = A x + b with A (m, n) in its packed form and an optional bias b [m]."""

    def __init__(self, kernels: Kernels, weight: Weight, bias: torch.Tensor | None = None) -> None:
        self._kernels = kernels
        self.weight = weight
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, n] to [T, m]."""
        return self._kernels.linear(x, self.weight, self.bias)
