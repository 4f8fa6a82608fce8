"""The engine's operations in Triton, for CUDA cards. Importing it needs no card and no driver."""

from engine.kernels.cuda.kernels import CudaKernels

__all__ = ["CudaKernels"]
