"""A model of random numbers in Q4_K_M's mix of types, through the model's own class, without a file."""

from collections.abc import Mapping
from itertools import chain

import torch

from benchmarks.gpu.model_shapes import q4_k_m
from benchmarks.gpu.random_blocks import DEVIATION, random_blocks
from engine.architectures import LlamaConfig
from engine.gguf import GGMLType
from engine.kernels import Correction, Norm
from engine.kernels.cuda import CudaKernels
from engine.kernels.cuda.planes import pack_planes
from engine.kernels.cuda.weight import CudaWeight
from engine.layers import Star, StarLinear
from engine.models import Loader
from engine.models.llama import Llama

GAMMA = 0.5
"""Strength of random thetas."""
_THETA_SHARE = 0.05
"""Of a random theta in a product, by its norm."""
_MOST = 127


def random_weight(kind: GGMLType, shape: tuple[int, int], generator: torch.Generator) -> CudaWeight:
    """A packed matrix on the generator's device."""
    return CudaWeight(pack_planes(random_blocks(kind, shape, generator), kind, shape), None)


def random_factors(
    rank: int, shape: tuple[int, int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Theta for a matrix (m, n) as files have it: u [r, m], v [r, n] float32, integers of up to 127 times,
    in u, a scale. With `GAMMA` it adds `_THETA_SHARE` to a product."""
    u, v = (
        torch.randint(-_MOST, _MOST + 1, (rank, size), generator=generator, device=generator.device).float()
        for size in shape
    )
    # A uniform integer of up to k has the mean square k (k + 1) / 3; u and v have the same.
    square = _MOST * (_MOST + 1) / 3
    return u * (_THETA_SHARE * DEVIATION / (0.5 * GAMMA * square * rank**0.5)), v


def random_correction(rank: int, shape: tuple[int, int], generator: torch.Generator) -> Correction:
    """A theta of its own for one matrix."""
    half_gamma = torch.tensor(0.5 * GAMMA, device=generator.device)
    return Correction(*random_factors(rank, shape, generator), half_gamma)


class RandomLoader(Loader):
    """Gives a model matrices and vectors that no file has, by the names and shapes of its architecture.

    With `rank` above 0 all matrices of the blocks have theta.
    """

    def __init__(self, config: LlamaConfig, kernels: CudaKernels, rank: int = 0, seed: int = 0) -> None:
        self.kernels = kernels
        self.star = Star(GAMMA, kernels.device) if rank else None
        self._packed: dict[str, CudaWeight] = {}
        self._layers = config.layers
        self._rank = rank
        self._shapes = dict(chain(config.tensors(), config.optional_tensors()))
        self._generator = torch.Generator(kernels.device).manual_seed(seed)

    def matrix(self, name: str) -> CudaWeight:
        """See `Loader.matrix`."""
        if name in self._packed:
            return self._packed[name]
        rows, columns = self._shapes[f"{name}.weight"]
        shape = rows, columns
        weight = random_weight(q4_k_m(name, self._layers), shape, self._generator)
        if self.star is not None and name.startswith("blk."):
            u, v = random_factors(self._rank, shape, self._generator)
            self.star.layers[f"{name}.weight"] = StarLinear(weight, u, v, self.star)
        self._packed[name] = weight
        return weight

    def norm(self, name: str, epsilon: float) -> Norm:
        """See `Loader.norm`."""
        (size,) = self._shapes[f"{name}.weight"]
        numbers = torch.randn(size, generator=self._generator, device=self.kernels.device)
        return Norm(1 + 0.1 * numbers, epsilon)

    def optional_vector(self, name: str) -> None:
        """There are no biases and no divisors of frequencies."""

    def has(self, name: str) -> bool:
        """The output has a matrix of its own."""
        return f"{name}.weight" in self._shapes

    @property
    def weights(self) -> Mapping[str, CudaWeight]:
        """See `Loader.weights`."""
        return self._packed

    @property
    def read_bytes(self) -> int:
        """Bytes of weights that a token's way through the model reads: all but the embedding's."""
        return sum(weight.planes.nbytes for name, weight in self.weights.items() if name != "token_embd")

    @property
    def flops(self) -> int:
        """Operations of these matrices for one token: a multiplication and an addition for each weight."""
        shapes = (weight.shape for name, weight in self.weights.items() if name != "token_embd")
        return sum(2 * rows * columns for rows, columns in shapes)


def random_model(
    config: LlamaConfig, kernels: CudaKernels, positions: int, rank: int = 0
) -> tuple[Llama, RandomLoader]:
    """A llama for contexts of up to `positions` tokens, and the loader that knows its matrices."""
    loader = RandomLoader(config, kernels, rank)
    return Llama(config, loader, positions), loader
