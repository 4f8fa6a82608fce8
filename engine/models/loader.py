"""Takes tensors out of a judged file and makes layers of them."""

import logging

import torch

from engine.gguf import NATIVE_TYPES, GGUFFile
from engine.kernels import Kernels, Weight
from engine.layers import Embedding, PackedLinear, RMSNorm, Star, StarLinear
from engine.theta import Theta
from engine.theta.names import corrected_tensor

_logger = logging.getLogger(__name__)


class Loader:
    """Layers by the names of the file's tensors, without their `.weight`."""

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

    def linear(self, name: str) -> PackedLinear:
        """A matrix, with the bias of the same name if the file has one, and theta if there is any."""
        weight, bias = self._matrix(name), self.optional_vector(f"{name}.bias")
        factors = self._star_factors(f"{name}.weight")
        if factors is None or self.star is None:
            return PackedLinear(self.kernels, weight, bias)
        u, v = (factor.to(self.kernels.device) for factor in factors)
        layer = StarLinear(self.kernels, weight, bias, u, v, self.star)
        self.star.layers[f"{name}.weight"] = layer
        return layer

    def embedding(self, name: str) -> Embedding:
        """A table of rows. A linear layer of the same name shares its memory."""
        return Embedding(self.kernels, self._matrix(name))

    def norm(self, name: str, epsilon: float) -> RMSNorm:
        """A normalisation."""
        return RMSNorm(self.kernels, self._vector(f"{name}.weight"), epsilon)

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

    def _matrix(self, name: str) -> Weight:
        if name not in self._matrices:
            info = self._file.tensors[f"{name}.weight"]
            rows, columns = info.shape
            data = self._file.data(info.name)
            self._matrices[name] = self.kernels.pack(data, info.type, (rows, columns))
        return self._matrices[name]

    def _vector(self, full: str) -> torch.Tensor:
        return torch.from_numpy(self._file.dequantize(full)).to(self.kernels.device)
