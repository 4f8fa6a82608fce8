"""Where the weights go, in which kernels' form, and how much memory that leaves. Pure.

The native kernels keep matrices packed, little larger than in the file, and the KV cache in float16. The
reference kernels plan with the memory that is free when they start: up to half of it holds matrices in
float32, taken in the file's order as long as they fit; the others stay packed in the file and are dequantised
at each use, which is slow. The KV cache gets what is left.
"""

from dataclasses import dataclass

from backend_selector.choice import Decision
from backend_selector.facts import FileFacts, MachineFacts, Wishes
from backend_selector.sizes import gib
from engine.config import DEFAULT_CONTEXT_LENGTH
from engine.errors import ConfigError
from engine.native import NATIVE_KERNELS

_PANELS = 1.04
"""The most that matrices grow when the native kernels take them over."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A model on one device."""

    device: Decision[str]
    kernels: Decision[str]
    free: int
    weights: int
    """Bytes that the weights take of the device's memory at most."""
    dense: bool
    """Whether all matrices are in the form that is fast to compute with."""
    kv_bytes_per_token: int
    """Keys and values of one token in all layers, as the cache holds them."""

    @property
    def room(self) -> int:
        """Bytes left beside the weights; never negative."""
        return max(0, self.free - self.weights)


def place(file: FileFacts, machine: MachineFacts, wishes: Wishes) -> Placement:
    """The device of the user's wish, else a CUDA device that can hold all of the model, else the CPU.

    Raises `ConfigError` for a device that there is not, and for kernels that it cannot run.
    """
    if wishes.device == "auto":
        return _automatic(file, machine, wishes)
    if wishes.device == "cpu":
        return _on_cpu(file, machine, wishes, "as asked for")
    _, _, index = wishes.device.partition(":")
    return _on_cuda(file, machine, wishes, int(index or 0))


def _automatic(file: FileFacts, machine: MachineFacts, wishes: Wishes) -> Placement:
    if not machine.cuda:
        return _on_cpu(file, machine, wishes, "there is no CUDA device")
    context = wishes.contextsize or min(file.trained_context, DEFAULT_CONTEXT_LENGTH)
    tokens = max(context, wishes.kvtokens or 0)
    for device in sorted(machine.cuda, key=lambda device: (-device.free, device.index)):
        reason = f"{device.name} holds all weights in float32 and the context"
        placement = _placement(file, machine, wishes, Decision(f"cuda:{device.index}", reason), device.free)
        if placement.dense and tokens * placement.kv_bytes_per_token <= placement.room - placement.free // 8:
            return placement
    needed = gib(file.matrix_bytes)
    return _on_cpu(
        file,
        machine,
        wishes,
        f"no CUDA device can hold {needed} of float32 weights in half of its free memory, and the context",
    )


def _on_cpu(file: FileFacts, machine: MachineFacts, wishes: Wishes, reason: str) -> Placement:
    return _placement(file, machine, wishes, Decision("cpu", reason), machine.available_memory)


def _on_cuda(file: FileFacts, machine: MachineFacts, wishes: Wishes, index: int) -> Placement:
    for device in machine.cuda:
        if device.index == index:
            asked = Decision(f"cuda:{index}", "as asked for")
            return _placement(file, machine, wishes, asked, device.free)
    seen = f"there are {len(machine.cuda)} CUDA devices" if machine.cuda else "there is no CUDA device"
    raise ConfigError(f"no device cuda:{index}: {seen}; use --device cpu, or ask nkat doctor")


def _placement(
    file: FileFacts, machine: MachineFacts, wishes: Wishes, device: Decision[str], free: int
) -> Placement:
    kernels = _kernels(machine, wishes, device.value)
    if kernels.value in NATIVE_KERNELS:
        weights = round(_PANELS * file.packed_bytes) + file.other_bytes
        return Placement(
            device, kernels, free, weights, dense=True, kv_bytes_per_token=-(-file.kv_bytes_per_token // 2)
        )
    budget = free // 2
    weights = min(file.matrix_bytes, budget) + file.other_bytes
    dense = file.matrix_bytes <= budget
    return Placement(device, kernels, free, weights, dense, file.kv_bytes_per_token)


def _kernels(machine: MachineFacts, wishes: Wishes, device: str) -> Decision[str]:
    there = machine.kernels if device == "cpu" else machine.kernels[-1:]
    if wishes.kernels == "auto":
        return Decision(there[0], f"the best that can run on {device}")
    if wishes.kernels not in there:
        raise ConfigError(f"no kernels {wishes.kernels!r:.40} on {device}; there are: {', '.join(there)}")
    return Decision(wishes.kernels, "as asked for")
