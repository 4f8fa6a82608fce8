"""Takes tensors out of a judged file and gives them to the kernels."""

import logging

import torch

from engine.gguf import NATIVE_TYPES, GGUFFile
from engine.kernels import Kernels, Norm, Weight
from engine.layers import Star, StarLinear
from engine.theta import Theta
from engine.theta.names import corrected_tensor

_logger = logging.getLogger(__name__)


class Loader:
    """Matrices and vectors by the names of the file's tensors, without their `.weight`."""

    def __init__(self, file: GGUFFile, kernels: Kernels, theta: Theta | None = None) -> None:
        """`file` and `theta`: as `open_model` and `read_theta` have found them good."""
        self._file = file
        self.kernels = kernels
        self._theta = {} if theta is None else theta.factors
        self.star = None if theta is None else Star(theta.gamma, kernels.device)
        self._matrices: dict[str, Weight] = {}
        own = (info for info in file.tensors.values() if corrected_tensor(info.name) is None)
        foreign = {info.type for info in own} - NATIVE_TYPES
        if foreign:
            _logger.warning(
                "%s holds tensors of type %s, which are dequantised when they are loaded and so need more "
                "memory than the file",
                file.path.name,
                ", ".join(sorted(ggml_type.name for ggml_type in foreign)),
            )

    def matrix(self, name: str) -> Weight:
        """A matrix, with the bias of the same name if the file has one, and theta if there is any.

        Asked for twice, for the embedding and for the output, it is the same.
        """
        if name in self._matrices:
            return self._matrices[name]
        info = self._file.tensors[f"{name}.weight"]
        rows, columns = info.shape
        bias = self.optional_vector(f"{name}.bias")
        weight = self.kernels.pack(self._file.data(info.name), info.type, (rows, columns), bias)
        self._matrices[name] = weight
        factors = self._star_factors(info.name)
        if factors is not None and self.star is not None:
            u, v = (factor.to(self.kernels.device) for factor in factors)
            self.star.layers[info.name] = StarLinear(weight, u, v, self.star)
        return weight

    def norm(self, name: str, epsilon: float) -> Norm:
        """A normalisation."""
        return Norm(self._vector(f"{name}.weight"), epsilon)

    def optional_vector(self, name: str) -> torch.Tensor | None:
        """float32 [n], or None where the file has no tensor of that full name."""
        return self._vector(name) if name in self._file.tensors else None

    def has(self, name: str) -> bool:
        """Whether the file has a weight of that name."""
        return f"{name}.weight" in self._file.tensors

    def _star_factors(self, tensor: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Theta of a tensor as a star layer has it, u [r, m] and v [r, n] float32; None without theta."""
        factors = self._theta.get(tensor)
        if factors is None:
            return None
        u, v = factors.rows()
        return torch.from_numpy(u), torch.from_numpy(v)

    def _vector(self, full: str) -> torch.Tensor:
        return torch.from_numpy(self._file.dequantize(full)).to(self.kernels.device)
