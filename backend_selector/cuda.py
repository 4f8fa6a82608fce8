"""Asks torch about CUDA devices, where there is a driver that could know any."""

import ctypes
import warnings
from collections.abc import Iterator
from pathlib import Path

from backend_selector.facts import CudaDevice

_DEVICE_FILES = ("nvidia[0-9]*", "nvidiactl", "dxg")
"""Below /dev; `dxg` is Windows' Linux subsystem."""


def has_driver() -> bool:
    """Whether the machine has a CUDA driver; a moment's look, without torch."""
    if any(True for pattern in _DEVICE_FILES for _ in Path("/dev").glob(pattern)):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def probe_devices() -> tuple[tuple[CudaDevice, ...], str | None]:
    """The devices that torch can use, and in one line what is wrong where it cannot. Imports torch."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            devices, fault = tuple(_devices()), None
        except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: what all of CUDA's derive from
            devices, fault = (), str(error)
    if not devices and fault is None and said:
        fault = str(said[0].message)
    return devices, fault.strip().partition("\n")[0] if fault else None


def _devices() -> Iterator[CudaDevice]:
    import torch

    from engine.kernels.dispatch import device_kernels

    if not torch.cuda.is_available():
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield CudaDevice(
            index=index,
            name=torch.cuda.get_device_name(index),
            total=total,
            free=free,
            capability=torch.cuda.get_device_capability(index),
            kernels=device_kernels(torch.device("cuda", index)),
        )
