"""The operations a model is made of, behind one interface, with implementations by device."""

from engine.kernels.dispatch import select_kernels
from engine.kernels.interface import Kernels, Weight

__all__ = ["Kernels", "Weight", "select_kernels"]
