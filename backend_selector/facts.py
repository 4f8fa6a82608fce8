"""What a choice is made from: a file, a machine, and what the user asks for. Sizes are bytes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend_selector.shares import checked_shares
from engine.architectures.cache_shape import CacheShape
from engine.errors import ConfigError

CACHE_BITS = {0: 16, 1: 8, 2: 4}
"""Bits of an element of the KV cache, by the numbers of `--quantkv`."""


@dataclass(frozen=True, slots=True)
class ThetaFacts:
    """Theta of a model, from its own file or from a sidecar."""

    rank: int
    gamma: float
    method: str
    base_sha256: str
    """The model file that it was made for, hexadecimal."""
    tensors: int
    """How many tensors it corrects."""


@dataclass(frozen=True, slots=True)
class PartSizes:
    """Bytes of a part of a model in each form that kernels keep matrices in, and of what is no matrix."""

    dense: int
    """Matrices in float32."""
    packed: int
    """Matrices as the file has them; those of types that are dequantised at load, in float32."""
    planes: int
    """Matrices as the Triton kernels regroup them, with theta in the form that these read."""
    other: int
    """What is always kept in float32: vectors, and theta's factors."""

    def __add__(self, other: "PartSizes") -> "PartSizes":
        return PartSizes(*(one + two for one, two in zip(self._all, other._all, strict=True)))

    def __sub__(self, other: "PartSizes") -> "PartSizes":
        return PartSizes(*(one - two for one, two in zip(self._all, other._all, strict=True)))

    @property
    def _all(self) -> tuple[int, int, int, int]:
        return self.dense, self.packed, self.planes, self.other


NOTHING = PartSizes(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Widths:
    """Elements of one token's activations."""

    model: int
    attention: int
    """Queries, keys and values of a layer."""
    feed_forward: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A model file that the engine can read, theta's own tensors not counted among the model's."""

    path: Path
    architecture: str
    name: str
    """As the file calls itself, else the file's name; printable."""
    size: int
    quantisation: str
    """The commonest type of the matrices, for example `Q4_1`."""
    tensor_types: tuple[str, ...]
    """All types of the model's tensors, sorted."""
    parameters: int
    trained_context: int
    cache_shape: CacheShape
    widths: Widths
    embedding: PartSizes
    """With all that belongs to no other part."""
    blocks: tuple[PartSizes, ...]
    """One for each layer, in turn."""
    output: PartSizes
    """With the norm in front of it; without a matrix where the embedding is the output."""
    tied: bool = False
    """Whether the embedding is the output matrix, too: it is kept twice if these are on two devices."""
    theta: ThetaFacts | None = None
    sha256: str | None = None
    """Of the file that theta must be made for; found out only where a sidecar asks for it."""
    surplus: bool = False
    """Whether the file holds theta's tensors beside the model's, which llama.cpp refuses."""

    @property
    def layers(self) -> int:
        """Blocks of the model."""
        return len(self.blocks)

    @property
    def whole(self) -> PartSizes:
        """All parts together, on one device."""
        return sum(self.blocks, self.embedding + self.output)


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """The processors that this process may use."""

    model: str
    physical_cores: int
    features: tuple[str, ...]
    """Those of `cpuinfo.FEATURES` that there are."""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A CUDA device, by its place in torch's list."""

    index: int
    name: str
    total: int
    free: int
    capability: tuple[int, int]
    kernels: tuple[str, ...] = ("reference",)
    """Kernel sets that can run on it, the best first."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The machine at the time of asking."""

    cpu: CpuFacts
    total_memory: int
    available_memory: int
    """What can be had without swapping."""
    python: str
    torch: str | None
    """Installed version."""
    cuda_driver: bool = False
    cuda: tuple[CudaDevice, ...] = ()
    cuda_fault: str | None = None
    """One line: why devices that the driver may know cannot be used."""
    kernels: tuple[str, ...] = ("reference",)
    """Kernel sets that can run on the CPU, the best first."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asks for; None and `auto` leave it to the choice.

    Raises `ConfigError` for values that no machine could meet.
    """

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    gpulayers: int | None = None
    """Layers on GPUs, of one more than there are blocks, for the output counts as one; -1: as many as fit."""
    tensor_split: tuple[float, ...] | None = None
    """Shares of these layers by device number."""
    maingpu: int | None = None
    """The only CUDA device to use, if there are any at all; -1: whichever are best."""
    contextsize: int | None = None
    kvtokens: int | None = None
    quantkv: int = 0
    """A key of `CACHE_BITS`."""
    threads: int | None = None
    theta: bool = True
    theta_path: Path | None = None
    gamma: float | None = None
    kernels: str = "auto"
    dtype: str = "auto"
    step_tokens: int = 512
    """Tokens computed in one step."""
    sequences: int = 16
    """Requests computed together."""

    def __post_init__(self) -> None:
        for name in ("contextsize", "kvtokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, not {value}")
        for name in ("gpulayers", "maingpu"):
            value = getattr(self, name)
            if value is not None and value < -1:
                raise ConfigError(f"--{name} must be at least -1, not {value}")
        if self.quantkv not in CACHE_BITS:
            raise ConfigError(f"--quantkv must be 0, 1 or 2, not {self.quantkv}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", self.device):
            raise ConfigError(f"--device must be auto, cpu, cuda or cuda:N, not {self.device!r:.40}")
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ConfigError(f"--theta-gamma must lie between 0 and 1, not {self.gamma:g}")
        self._check_split()

    def _check_split(self) -> None:
        if self.tensor_split is None:
            return
        try:
            checked_shares(self.tensor_split)
        except ValueError as error:
            raise ConfigError(f"--tensor-split: {error}") from None
        if self.device.startswith("cuda:"):
            raise ConfigError(
                f"--tensor-split is for several GPUs, --device {self.device} for one: leave one of them out"
            )

    @property
    def wants_gpu(self) -> Iterator[str]:
        """The flags that ask for CUDA devices and can be met without."""
        if self.gpulayers is not None and self.gpulayers > 0:
            yield "--gpulayers"
        if self.tensor_split is not None:
            yield "--tensor-split"
        if self.maingpu is not None and self.maingpu >= 0:
            yield "--maingpu"
