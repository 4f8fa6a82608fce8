"""Chooses the kernels of a device."""

from importlib.util import find_spec

import torch

from engine.errors import ConfigError
from engine.kernels.interface import Kernels
from engine.kernels.native import NativeKernels
from engine.kernels.reference import ReferenceKernels
from engine.kv_cache import CacheFormat
from engine.native import native_kernels

TRITON = "triton"
TRITON_CAPABILITY = (8, 0)
"""The oldest cards that the Triton kernels are compiled for: bfloat16 products need it."""


def select_kernels(
    device: torch.device,
    *,
    dense_bytes: int,
    threads: int,
    name: str = "auto",
    cache_format: CacheFormat = CacheFormat.F16,
) -> Kernels:
    """The kernels of a name, or, for `auto`, the best that the device can run.

    Several names, joined by `+`, are for a model on several devices: the first that runs on this one counts.
    `threads`: for kernels of the processor. `dense_bytes`: memory that the reference kernels may spend on
    dequantised copies of the weights. `cache_format`: of keys and values, for kernels with several.
    Raises `ConfigError` for a name of none that can run here.
    """
    names = device_kernels(device)
    wanted = [one for one in name.split("+") if one in names]
    if name != "auto" and not wanted:
        raise ConfigError(f"no kernels {name!r:.40} on {device}; there are: {', '.join(names)}")
    chosen = names[0] if name == "auto" else wanted[0]
    if chosen == ReferenceKernels.name:
        return ReferenceKernels(device, dense_bytes=dense_bytes)
    if chosen == TRITON:
        # Not before: these kernels need Triton, which comes with torch for CUDA alone.
        from engine.kernels.cuda import CudaKernels

        return CudaKernels(device, cache_format)
    return NativeKernels(chosen, threads)


def device_kernels(device: torch.device) -> tuple[str, ...]:
    """The names of the kernels that can run on a device, the best first."""
    if device.type == "cpu":
        return (*native_kernels(), ReferenceKernels.name)
    capable = device.type == "cuda" and torch.cuda.get_device_capability(device) >= TRITON_CAPABILITY
    if capable and find_spec("triton") is not None:
        return (TRITON, ReferenceKernels.name)
    return (ReferenceKernels.name,)
