"""A linear layer with theta: the star product A * x = A x + 0.5 gamma (theta * x)."""

from collections.abc import Mapping

import torch

from engine.kernels import Kernels, Weight
from engine.layers.linear import PackedLinear
from engine.theta import ThetaFactors


class Star:
    """What all star layers of a model share: gamma, and whether theta counts.

    Both may change between runs of the model. gamma lives in one tensor that the layers read, so that
    captured graphs stay valid.
    """

    def __init__(self, gamma: float, device: torch.device) -> None:
        self._gamma = gamma
        self._half_gamma = torch.tensor(0.5 * gamma, device=device)
        self._enabled = True
        self.layers: dict[str, StarLinear] = {}
        """By the name of the corrected tensor."""

    @property
    def gamma(self) -> float:
        """The present strength."""
        return self._gamma

    @property
    def enabled(self) -> bool:
        """Whether theta counts."""
        return self._enabled

    @property
    def rank(self) -> int:
        """The largest rank of all layers; 0 without any."""
        return max((len(layer.u) for layer in self.layers.values()), default=0)

    @property
    def bytes(self) -> int:
        """Memory of all factors."""
        return sum(layer.u.nbytes + layer.v.nbytes for layer in self.layers.values())

    @property
    def half_gamma(self) -> torch.Tensor:
        """0.5 gamma, float32, 0-dimensional."""
        return self._half_gamma

    def set_gamma(self, gamma: float) -> None:
        """Use another gamma from now on; 0 is the baseline."""
        self._gamma = gamma
        self._half_gamma.fill_(0.5 * gamma)

    def load(self, factors: Mapping[str, ThetaFactors]) -> None:
        """Take other factors from now on, of any rank; layers that get none compute the baseline."""
        for name, layer in self.layers.items():
            layer.load(factors.get(name))
        self.enable(self._enabled)

    def enable(self, on: bool) -> None:
        """Let theta count, or compute the baseline as if there were none."""
        self._enabled = on
        for layer in self.layers.values():
            layer.enable(on)


class StarLinear(PackedLinear):
    """y = A x + b + 0.5 gamma B x with B = (u^T v): u [r, m] and v [r, n] float, the scales in u."""

    def __init__(
        self,
        kernels: Kernels,
        weight: Weight,
        bias: torch.Tensor | None,
        u: torch.Tensor,
        v: torch.Tensor,
        star: Star,
    ) -> None:
        super().__init__(kernels, weight, bias)
        self.u = u
        self.v = v
        self._star = star
        self._compute = self._starred

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, n] to [T, m]."""
        return self._compute(x)

    def load(self, factors: ThetaFactors | None) -> None:
        """Take other factors, of any rank; None is the baseline, theta of rank 0."""
        if factors is None:
            self.u, self.v = self.u[:0], self.v[:0]
        else:
            self.u, self.v = (torch.from_numpy(rows).to(self.u.device) for rows in factors.rows())

    def enable(self, on: bool) -> None:
        """With theta if there is any, or without."""
        self._compute = self._starred if on and len(self.u) else super().__call__

    def _starred(self, x: torch.Tensor) -> torch.Tensor:
        return self._kernels.star_linear(x, self.weight, self.bias, self.u, self.v, self._star.half_gamma)
