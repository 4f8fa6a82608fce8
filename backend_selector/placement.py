"""Where the weights go, and how much memory that leaves. Pure.

The engine plans with the memory that is free when it starts: up to half of it holds matrices in float32,
taken in the file's order as long as they fit; the others stay packed in the file and are dequantised at
each use, which is slow. The KV cache gets what is left.
"""

from dataclasses import dataclass

from backend_selector.choice import Decision
from backend_selector.facts import FileFacts, MachineFacts, Wishes
from backend_selector.sizes import gib
from engine.config import DEFAULT_CONTEXT_LENGTH
from engine.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Placement:
    """A model on one device."""

    device: Decision[str]
    free: int
    weights: int
    """Bytes that the weights take of the device's memory at most."""
    dense: bool
    """Whether all matrices are in float32; if not, some stay packed."""

    @property
    def room(self) -> int:
        """Bytes left beside the weights; never negative."""
        return max(0, self.free - self.weights)


def place(file: FileFacts, machine: MachineFacts, wishes: Wishes) -> Placement:
    """The device of the user's wish, else a CUDA device that can hold all of the model, else the CPU.

    Raises `ConfigError` for a device that there is not.
    """
    if wishes.device == "auto":
        return _automatic(file, machine, wishes)
    if wishes.device == "cpu":
        return _on_cpu(file, machine, "as asked for")
    _, _, index = wishes.device.partition(":")
    return _on_cuda(file, machine, int(index or 0))


def _automatic(file: FileFacts, machine: MachineFacts, wishes: Wishes) -> Placement:
    if not machine.cuda:
        return _on_cpu(file, machine, "there is no CUDA device")
    context = wishes.contextsize or min(file.trained_context, DEFAULT_CONTEXT_LENGTH)
    tokens = max(context, wishes.kvtokens or 0)
    for device in sorted(machine.cuda, key=lambda device: (-device.free, device.index)):
        reason = f"{device.name} holds all weights in float32 and the context"
        placement = _placement(file, Decision(f"cuda:{device.index}", reason), device.free)
        if placement.dense and tokens * file.kv_bytes_per_token <= placement.room - placement.free // 8:
            return placement
    needed = gib(file.matrix_bytes)
    return _on_cpu(
        file,
        machine,
        f"no CUDA device can hold {needed} of float32 weights in half of its free memory, and the context",
    )


def _on_cpu(file: FileFacts, machine: MachineFacts, reason: str) -> Placement:
    return _placement(file, Decision("cpu", reason), machine.available_memory)


def _on_cuda(file: FileFacts, machine: MachineFacts, index: int) -> Placement:
    for device in machine.cuda:
        if device.index == index:
            return _placement(file, Decision(f"cuda:{index}", "as asked for"), device.free)
    seen = f"there are {len(machine.cuda)} CUDA devices" if machine.cuda else "there is no CUDA device"
    raise ConfigError(f"no device cuda:{index}: {seen}; use --device cpu, or ask nkat doctor")


def _placement(file: FileFacts, device: Decision[str], free: int) -> Placement:
    budget = free // 2
    weights = min(file.matrix_bytes, budget) + file.other_bytes
    return Placement(device, free, weights, dense=file.matrix_bytes <= budget)
