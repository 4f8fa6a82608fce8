"""What a choice says."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from backend_selector.sizes import gib

T_co = TypeVar("T_co", covariant=True)
EngineName = Literal["nkat", "baseline"]


@dataclass(frozen=True, slots=True)
class Decision(Generic[T_co]):
    """A value, and in a few words why it is that one."""

    value: T_co
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """What a device has of the model, in bytes of its memory, at most."""

    device: str
    kernels: str
    layers: int
    """Blocks; the output matrix is on the last device."""
    weights: int
    cache: int
    """Keys and values of these layers."""
    workspace: int
    """What a step allocates, as far as it is planned for."""
    free: int
    """What was free before."""

    @property
    def used(self) -> int:
        """All three together."""
        return self.weights + self.cache + self.workspace

    def describe(self) -> str:
        """What the device's memory is taken by, of how much."""
        parts = (("weights", self.weights), ("KV cache", self.cache), ("workspace", self.workspace))
        return f"{', '.join(f'{name} {gib(size)}' for name, size in parts if size)}, of {gib(self.free)} free"


@dataclass(frozen=True, slots=True)
class Choice:
    """How to run a model here."""

    engine: Decision[EngineName]
    """`nkat`: with theta; `baseline`: without."""
    gamma: Decision[float] | None
    """Theta's strength; None for the baseline."""
    device: Decision[str]
    """`cpu` or `cuda:N`, or several with their layers, `cpu=9,cuda:0=24`."""
    kernels: Decision[str]
    """A name, or those of several devices, joined by `+`."""
    dtype: Decision[str]
    context: Decision[int]
    """Tokens a request may span."""
    kv_tokens: Decision[int]
    """Tokens the KV cache holds over all requests; at least one context."""
    threads: Decision[int]
    layers: Decision[tuple[tuple[str, int], ...]]
    """How many layers each device has."""
    shares: tuple[DeviceShare, ...]
    """What each device has, in the order of `layers`."""
    memory: int
    """Bytes that weights, KV cache and workspace take at most, on all devices."""
    koboldcpp: tuple[str, ...]
    """The KoboldCpp command line that serves the same model."""
    koboldcpp_needs: tuple[str, ...] = ()
    """Files that this command line asks for and how to come by them."""
    warnings: tuple[str, ...] = ()
