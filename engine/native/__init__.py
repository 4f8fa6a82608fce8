"""The compiled kernels of the processor as a library of C functions. Knows no torch."""

from engine.native.library import NATIVE_KERNELS, native_kernels, open_library

__all__ = ["NATIVE_KERNELS", "native_kernels", "open_library"]
