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


def select_kernels(
    device: torch.device,
    *,
    dense_bytes: int,
    threads: int,
    name: str = "auto",
    cache_format: CacheFormat = CacheFormat.F16,
) -> Kernels:
    """The kernels of a name, or, for `auto`, the best that the device can run.

    `threads`: for kernels of the processor. `dense_bytes`: memory that the reference kernels may spend on
    dequantised copies of the weights. `cache_format`: of keys and values, for kernels with several.
    Raises `ConfigError` for a name of none that can run here.
    """
    names = (*_fast(device), ReferenceKernels.name)
    if name not in ("auto", *names):
        raise ConfigError(f"no kernels {name!r:.40} on {device}; there are: {', '.join(names)}")
    chosen = names[0] if name == "auto" else name
    if chosen == ReferenceKernels.name:
        return ReferenceKernels(device, dense_bytes=dense_bytes)
    if chosen == TRITON:
        # Not before: these kernels need Triton, which comes with torch for CUDA alone.
        from engine.kernels.cuda import CudaKernels

        return CudaKernels(device, cache_format)
    return NativeKernels(chosen, threads)


def _fast(device: torch.device) -> tuple[str, ...]:
    """The kernels made for a device, the best first."""
    if device.type == "cpu":
        return native_kernels()
    return (TRITON,) if device.type == "cuda" and find_spec("triton") is not None else ()
