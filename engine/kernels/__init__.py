"""The operations a model is made of, behind one interface, with implementations by device."""

from engine.kernels.dispatch import select_kernels
from engine.kernels.interface import Kernels, Layers
from engine.kernels.operands import Drawing, Draws, FeedForward, Norm, Rotation, SelfAttention
from engine.kernels.weight import Correction, Weight

__all__ = [
    "Correction",
    "Drawing",
    "Draws",
    "FeedForward",
    "Kernels",
    "Layers",
    "Norm",
    "Rotation",
    "SelfAttention",
    "Weight",
    "select_kernels",
]
