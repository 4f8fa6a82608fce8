"""Chooses the kernels of a device."""

import torch

from engine.kernels.interface import Kernels
from engine.kernels.reference import ReferenceKernels


def select_kernels(device: torch.device, *, dense_bytes: int) -> Kernels:
    """The best kernel set for a device.

    `dense_bytes`: memory that the reference kernels may spend on dequantised copies of the weights.
    """
    return ReferenceKernels(device, dense_bytes=dense_bytes)
