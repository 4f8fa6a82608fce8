"""Chooses the kernels of a device."""

import torch

from engine.errors import ConfigError
from engine.kernels.interface import Kernels
from engine.kernels.native import NativeKernels
from engine.kernels.reference import ReferenceKernels
from engine.native import native_kernels


def select_kernels(device: torch.device, *, dense_bytes: int, threads: int, name: str = "auto") -> Kernels:
    """The kernels of a name, or, for `auto`, the best that the device can run.

    `threads`: for kernels of the processor. `dense_bytes`: memory that the reference kernels may spend on
    dequantised copies of the weights. Raises `ConfigError` for a name of none that can run here.
    """
    names = (*(native_kernels() if device.type == "cpu" else ()), ReferenceKernels.name)
    if name not in ("auto", *names):
        raise ConfigError(f"no kernels {name!r:.40} on {device}; there are: {', '.join(names)}")
    chosen = names[0] if name == "auto" else name
    if chosen == ReferenceKernels.name:
        return ReferenceKernels(device, dense_bytes=dense_bytes)
    return NativeKernels(chosen, threads)
