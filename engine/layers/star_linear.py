"""A linear layer with theta: the star product A * x = A x + 0.5 gamma (theta * x)."""

from collections.abc import Mapping

import torch

from engine.kernels import Correction, Weight
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

    def enable(self, on: bool) -> None:
        """Let theta count, or compute the baseline as if there were none."""
        self._enabled = on
        for layer in self.layers.values():
            layer.enable(on)


class StarLinear:
    """Theta of one packed matrix A: A * x = A x + 0.5 gamma B x with B = (u^T v), the scales in u.

    It stands beside the matrix and corrects its products while theta counts; a model without theta has none.
    """

    def __init__(self, weight: Weight, u: torch.Tensor, v: torch.Tensor, star: Star) -> None:
        self.weight = weight
        self._star = star
        self.replace(u, v)

    @property
    def u(self) -> torch.Tensor:
        """float32 [r, m]."""
        return self._u

    @property
    def v(self) -> torch.Tensor:
        """float32 [r, n]."""
        return self._v

    def replace(self, u: torch.Tensor, v: torch.Tensor) -> None:
        """Take other factors, u [r, m] and v [r, n] of any rank; rank 0 is the baseline."""
        self._u, self._v = u, v
        self._correction = Correction(u, v, self._star.half_gamma) if len(u) else None
        self.enable(self._star.enabled)

    def load(self, factors: ThetaFactors | None) -> None:
        """Take the factors of a file; None is the baseline."""
        if factors is None:
            self.replace(self.u[:0], self.v[:0])
        else:
            u, v = (torch.from_numpy(rows).to(self.u.device) for rows in factors.rows())
            self.replace(u, v)

    def enable(self, on: bool) -> None:
        """With theta if there is any, or without."""
        self.weight.correct(self._correction if on else None)
