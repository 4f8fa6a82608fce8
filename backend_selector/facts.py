"""What a choice is made from: a file, a machine, and what the user asks for. Sizes are bytes."""

import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError


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
    layers: int
    trained_context: int
    kv_bytes_per_token: int
    """Keys and values of one token in all layers, in float32; at least 1."""
    matrix_bytes: int
    """All matrices in float32."""
    packed_bytes: int
    """All matrices as the file has them."""
    other_bytes: int
    """What is always kept in float32: vectors, and theta's factors."""
    theta: ThetaFacts | None = None
    sha256: str | None = None
    """Of the file that theta must be made for; found out only where a sidecar asks for it."""
    surplus: bool = False
    """Whether the file holds theta's tensors beside the model's, which llama.cpp refuses."""


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
    """Kernel sets that can run on the CPU, the best first; the last runs on every device."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asks for; None and `auto` leave it to the choice.

    Raises `ConfigError` for values that no machine could meet.
    """

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    contextsize: int | None = None
    kvtokens: int | None = None
    threads: int | None = None
    theta: bool = True
    theta_path: Path | None = None
    gamma: float | None = None
    kernels: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("contextsize", "kvtokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, not {value}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", self.device):
            raise ConfigError(f"--device must be auto, cpu, cuda or cuda:N, not {self.device!r:.40}")
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ConfigError(f"--theta-gamma must lie between 0 and 1, not {self.gamma:g}")
