"""What the layers of a model get to see: the second moments of their inputs."""

import torch

from engine.kernels import Norm, Weight
from engine.kernels.reference import ReferenceKernels

FIRST_POSITIONS = 1
"""Positions left out at the start of each window. The activations of a first token are massive in most
models, say nothing of the text, and would take the whole rank for themselves; those that follow do not
(measured on SmolLM2: leaving out four of 512 recovers less than leaving out one)."""


class InputMoments:
    """R = E[x x^T], float64 [n, n], for each layer that was shown its inputs.

    Layers that are given the same tensor share one R, so that q, k and v cost what one of them does.
    """

    def __init__(self) -> None:
        self._shared: dict[int, _Moment] = {}
        self._latest: tuple[torch.Tensor, _Moment] | None = None

    def show(self, x: torch.Tensor, weight: Weight) -> None:
        """Count the inputs x [T, n] of a layer, a whole window from its first position on."""
        if self._latest is not None and self._latest[0] is x:
            self._shared.setdefault(id(weight), self._latest[1])
            return
        moment = self._shared.setdefault(id(weight), _Moment())
        moment.add(x[FIRST_POSITIONS:])
        self._latest = x, moment

    def of(self, weight: Weight) -> torch.Tensor | None:
        """R of a layer; None if it was never shown an input."""
        moment = self._shared.get(id(weight))
        return None if moment is None else moment.mean()


class _Moment:
    """A mean of outer products under way."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._count = 0

    def add(self, rows: torch.Tensor) -> None:
        product = (rows.T @ rows).double()
        self._sum = product if self._sum is None else self._sum.add_(product)
        self._count += len(rows)

    def mean(self) -> torch.Tensor | None:
        return None if self._sum is None else self._sum / self._count


class ObservedKernels(ReferenceKernels):
    """Reference kernels that show the inputs of star layers to `moments` while there is one."""

    moments: InputMoments | None = None

    def linear(self, x: torch.Tensor, weight: Weight, norm: Norm | None = None) -> torch.Tensor:
        """The product, with a look at the input of a star product."""
        if norm is not None:
            x = self.rms_norm(x, norm)
        if self.moments is not None and weight.correction is not None:
            self.moments.show(x, weight)
        return super().linear(x, weight)
