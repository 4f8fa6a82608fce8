"""Takes tensors out of a judged file and makes layers of them."""

import logging

import torch

from engine.gguf import NATIVE_TYPES, GGUFFile
from engine.kernels import Kernels, Weight
from engine.layers import Embedding, PackedLinear, RMSNorm

_logger = logging.getLogger(__name__)


class Loader:
    """Layers by the names of the file's tensors, without their `.weight`."""

    def __init__(self, file: GGUFFile, kernels: Kernels) -> None:
        """`file`: as `engine.architectures.open_model` has found it good."""
        self._file = file
        self.kernels = kernels
        self._matrices: dict[str, Weight] = {}
        foreign = {info.type for info in file.tensors.values()} - NATIVE_TYPES
        if foreign:
            _logger.warning(
                "%s holds tensors of type %s, which are dequantised when they are loaded and so need more "
                "memory than the file",
                file.path.name,
                ", ".join(sorted(ggml_type.name for ggml_type in foreign)),
            )

    def linear(self, name: str) -> PackedLinear:
        """A matrix, with the bias of the same name if the file has one."""
        return PackedLinear(self.kernels, self._matrix(name), self.optional_vector(f"{name}.bias"))

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

    def _matrix(self, name: str) -> Weight:
        if name not in self._matrices:
            info = self._file.tensors[f"{name}.weight"]
            rows, columns = info.shape
            data = self._file.data(info.name)
            self._matrices[name] = self.kernels.pack(data, info.type, (rows, columns))
        return self._matrices[name]

    def _vector(self, full: str) -> torch.Tensor:
        return torch.from_numpy(self._file.dequantize(full)).to(self.kernels.device)
