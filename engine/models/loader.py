"""Takes tensors out of a judged file and gives them to the kernels."""

import logging
import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from engine.architectures import ModelFile
from engine.errors import ModelFileError
from engine.gguf import NATIVE_TYPES
from engine.kernels import Kernels, Norm, Weight
from engine.kernels.split import SplitKernels, TiedWeight
from engine.layers import Star, StarLinear
from engine.models.interface import not_finite
from engine.theta import Theta
from engine.theta.names import corrected_tensor

_logger = logging.getLogger(__name__)

_EMBEDDING, _OUTPUT = "token_embd", "output"
_BLOCK = re.compile(r"blk\.(\d+)\.")


class SplitStar(Star):
    """Theta of a model on several devices: one for each of them, all following this one."""

    def __init__(self, gamma: float, devices: Iterable[torch.device]) -> None:
        super().__init__(gamma, torch.device("cpu"))
        self._followers = {device: Star(gamma, device) for device in devices}

    def on(self, device: torch.device) -> Star:
        """The one that layers of a device read gamma of."""
        return self._followers[device]

    def set_gamma(self, gamma: float) -> None:
        """As `Star.set_gamma`, on all devices."""
        super().set_gamma(gamma)
        for follower in self._followers.values():
            follower.set_gamma(gamma)

    def enable(self, on: bool) -> None:
        """As `Star.enable`; factors that layers take later on find it so, too."""
        for follower in self._followers.values():
            follower.enable(on)
        super().enable(on)


class Loader:
    """Matrices and vectors by the names of the file's tensors, without their `.weight`.

    Knows those tensors alone that the architecture describes, whose shapes were compared with it.
    """

    def __init__(self, model: ModelFile, kernels: Kernels, theta: Theta | None = None) -> None:
        """`model` and `theta`: as `open_model` and `read_theta` have found them good."""
        self._file = model.file
        self._tensors = model.tensors
        self.kernels = kernels
        self._theta = {} if theta is None else theta.factors
        self.star = None if theta is None else _star(theta.gamma, kernels)
        self._matrices: dict[str, Weight] = {}
        own = (info for info in model.file.tensors.values() if corrected_tensor(info.name) is None)
        foreign = {info.type for info in own} - NATIVE_TYPES
        if foreign:
            _logger.warning(
                "%s holds tensors of type %s, which are dequantised when they are loaded and so need more "
                "memory than the file",
                model.file.path.name,
                ", ".join(sorted(ggml_type.name for ggml_type in foreign)),
            )

    def matrix(self, name: str) -> Weight:
        """A matrix, with the bias of the same name if the file has one, and theta if there is any.

        Asked for twice, for the embedding and for the output, it is the same.
        """
        if name in self._matrices:
            return self._matrices[name]
        weight = self._matrices[name] = self._pack(name)
        factors = self._star_factors(f"{name}.weight")
        if factors is not None and self.star is not None:
            # Of a matrix that is also the embedding, the products are the output.
            home = self._home(_OUTPUT if isinstance(weight, TiedWeight) else name)
            u, v = (factor.to(home.device) for factor in factors)
            star = self.star.on(home.device) if isinstance(self.star, SplitStar) else self.star
            self.star.layers[f"{name}.weight"] = StarLinear(weight, u, v, star)
        return weight

    def norm(self, name: str, epsilon: float) -> Norm:
        """A normalisation."""
        return Norm(self._vector(f"{name}.weight"), epsilon)

    def optional_vector(self, name: str) -> torch.Tensor | None:
        """float32 [n], or None where the file has no tensor of that full name."""
        return self._vector(name) if name in self._tensors else None

    def has(self, name: str) -> bool:
        """Whether the file has a weight of that name."""
        return f"{name}.weight" in self._tensors

    @property
    def weights(self) -> Mapping[str, Weight]:
        """All matrices that were asked for, by name."""
        return self._matrices

    def _pack(self, name: str) -> Weight:
        """The matrix in the form of its kernels; twice where it is needed on two devices."""
        info = self._tensors[f"{name}.weight"]
        rows, columns = info.shape
        bias = self.optional_vector(f"{name}.bias")
        data = self._file.data(info.name)
        weight = self._home(name).pack(data, info.type, (rows, columns), bias)
        if isinstance(self.kernels, SplitKernels) and name == _EMBEDDING and not self.has(_OUTPUT):
            last = self._home(_OUTPUT)
            moved = None if bias is None else bias.to(last.device)
            return TiedWeight(weight, last.pack(data, info.type, (rows, columns), moved))
        return weight

    def _home(self, name: str) -> Kernels:
        """The kernels that compute with a tensor; of a split model those of its stage, if it has one."""
        if not isinstance(self.kernels, SplitKernels):
            return self.kernels
        block = _BLOCK.match(name)
        if block is not None:
            return self.kernels.of_block(int(block[1]))
        return self.kernels.last if name.startswith(_OUTPUT) else self.kernels

    def _star_factors(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Theta of a tensor as a star layer has it, u [r, m] and v [r, n] float32; None without theta."""
        factors = self._theta.get(tensor)
        if factors is None:
            return None
        u, v = factors.rows()
        return torch.from_numpy(u), torch.from_numpy(v)

    def _vector(self, full: str) -> torch.Tensor:
        values = self._file.dequantize(self._tensors[full].name)
        if not np.isfinite(values).all():
            raise ModelFileError(not_finite([full]))
        return torch.from_numpy(values).to(self._home(full).device)


def _star(gamma: float, kernels: Kernels) -> Star:
    """Theta with its strength where the kernels read it."""
    if isinstance(kernels, SplitKernels):
        devices = [stage.kernels.device for stage in kernels.stages]
        return SplitStar(gamma, [*devices, kernels.device])
    return Star(gamma, kernels.device)
