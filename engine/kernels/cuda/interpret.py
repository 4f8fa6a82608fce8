"""Whether Triton's kernels are compiled or interpreted."""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
"""Kernels run in Triton's interpreter, which knows no inline assembly and no products of bfloat16.

Fixed when this module is imported, as `triton.jit` fixes it for a kernel when that is defined.
"""
