"""What a choice says."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T_co = TypeVar("T_co", covariant=True)
EngineName = Literal["nkat", "baseline"]


@dataclass(frozen=True, slots=True)
class Decision(Generic[T_co]):
    """A value, and in a few words why it is that one."""

    value: T_co
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """How to run a model here."""

    engine: Decision[EngineName]
    """`nkat`: with theta; `baseline`: without."""
    gamma: Decision[float] | None
    """Theta's strength; None for the baseline."""
    device: Decision[str]
    """`cpu` or `cuda:N`, as torch names it."""
    kernels: Decision[str]
    dtype: Decision[str]
    context: Decision[int]
    """Tokens a request may span."""
    kv_tokens: Decision[int]
    """Tokens the KV cache holds over all requests; at least one context."""
    threads: Decision[int]
    layers: Decision[tuple[tuple[str, int], ...]]
    """How many layers each device has."""
    memory: int
    """Bytes of the device's free memory that weights and KV cache take at most."""
    koboldcpp: tuple[str, ...]
    """The KoboldCpp command line that serves the same model."""
    koboldcpp_needs: tuple[str, ...] = ()
    """Files that this command line asks for and how to come by them."""
    warnings: tuple[str, ...] = ()
