"""The kernels that can run here, for tests of all of them."""

from engine.kernels.reference import ReferenceKernels
from engine.native import native_kernels

ALL = (*native_kernels(), ReferenceKernels.name)
FASTEST_AND_REFERENCE = tuple(dict.fromkeys((ALL[0], ReferenceKernels.name)))
"""For tests that are slow: what `auto` means, and the exact ones."""
