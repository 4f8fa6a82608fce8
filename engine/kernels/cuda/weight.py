"""A matrix on the card, with theta in the form that the kernels read."""

from dataclasses import dataclass

import torch

from engine.kernels.cuda.planes import Planes
from engine.kernels.weight import Correction, Weight


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTheta:
    """Theta's factors: `u` float32 [m, r], transposed for the kernels; `v` [r, n], int8 or float32.

    Files hold rows of v as integers of up to 127, so int8 loses nothing and is a quarter to read.
    `half_gamma` float32, 0-dimensional, is read by the kernels at each product.
    """

    u: torch.Tensor
    v: torch.Tensor
    half_gamma: torch.Tensor

    @property
    def rank(self) -> int:
        """The number of rows of v."""
        return len(self.v)


class CudaWeight(Weight):
    """A packed matrix. Its tensors stay where they are as long as it lives: graphs may hold them.

    Whether theta is in use is decided when kernels are launched, so a graph that was captured with theta
    keeps it.
    """

    def __init__(self, planes: Planes, bias: torch.Tensor | None) -> None:
        super().__init__(planes.shape, None if bias is None else bias.to(planes.low.device).float())
        self.planes = planes
        self.theta: DeviceTheta | None = None
        """What the kernels use; None: a plain product."""
        self._converted: tuple[Correction, DeviceTheta] | None = None

    def correct(self, correction: Correction | None) -> None:
        """As `Weight.correct`. The factors come to the card once, also if theta is switched off and on."""
        super().correct(correction)
        if correction is None:
            self.theta = None
            return
        if self._converted is None or self._converted[0] is not correction:
            self._converted = correction, self._on_device(correction)
        self.theta = self._converted[1]

    def _on_device(self, correction: Correction) -> DeviceTheta:
        device = self.planes.low.device
        u, v = (part.detach().to(device, torch.float32) for part in (correction.u, correction.v))
        whole = bool(((v == v.round()) & (v.abs() <= 127)).all())
        half_gamma = correction.half_gamma.detach().to(device, torch.float32)
        return DeviceTheta(u.T.contiguous(), (v.to(torch.int8) if whole else v).contiguous(), half_gamma)
