"""Products with packed matrices, star products included, in the way that suits the number of rows.

Up to `gemv.MOST_COLUMNS` rows of activations: integers of 8 bits, everything in one launch behind the one
that rounds. Up to `gemm.MOST_ROWS`: tensor cores on tiles of weights. Beyond: the matrix becomes bfloat16, a
slab at a time, for the library's product. Theta always joins in the epilogue, which needs T m r operations,
where changing the matrix instead would need n m r.
"""

from collections.abc import Sequence

import torch

from engine.gguf import GGMLType
from engine.kernels.cuda.activations import Activations, prepare
from engine.kernels.cuda.dequantize import dequantize
from engine.kernels.cuda.epilogue import Epilogue, finish
from engine.kernels.cuda.formats import FLOATS
from engine.kernels.cuda.gemm import MOST_ROWS, gemm
from engine.kernels.cuda.gemv import MOST_COLUMNS, gemv
from engine.kernels.cuda.weight import CudaWeight
from engine.kernels.operands import Norm

_SLAB_BYTES = 24 * 2**20
"""Of a dequantised matrix at a time: what the larger cards' second level cache holds beside the rest."""


def project(
    x: torch.Tensor | Activations, weights: Sequence[CudaWeight], norm: Norm | None = None
) -> list[torch.Tensor]:
    """The products of x with up to three matrices, each with bias and theta: float32 [T, m].

    x: float32 [T, n] with unit stride in a row, behind a norm if any; or `activations` of the same weights.
    """
    prepared = _prepared(x, weights, norm)
    outs = [_empty(prepared, weight.shape[0], weight) for weight in weights]
    _multiply(prepared, weights, Epilogue.STORE, outs)
    return outs


def project_onto(
    x: torch.Tensor | Activations, weight: CudaWeight, residual: torch.Tensor, norm: Norm | None = None
) -> None:
    """Add the product of x with a matrix to `residual` float32 [T, m], in place."""
    _multiply(_prepared(x, [weight], norm), [weight], Epilogue.ADD, [residual])


def project_gated(
    x: torch.Tensor | Activations, gate: CudaWeight, up: CudaWeight, norm: Norm | None = None
) -> torch.Tensor:
    """silu(gate x) * (up x), float32 [T, m]."""
    prepared = _prepared(x, [gate, up], norm)
    out = _empty(prepared, gate.shape[0], gate)
    _multiply(prepared, [gate, up], Epilogue.GATE, [out])
    return out


def activations(x: torch.Tensor, weights: Sequence[CudaWeight], norm: Norm | None = None) -> Activations:
    """x float32 [T, n] in the forms that products with these weights want, at this number of rows."""
    types = {weight.planes.type for weight in weights}
    few = len(x) <= MOST_COLUMNS
    if few:
        floats = torch.float32 if types & FLOATS else None
    else:
        floats = torch.float32 if GGMLType.F32 in types else torch.bfloat16
    vs = [None if weight.theta is None else weight.theta.v for weight in weights]
    return prepare(x, norm, vs, integers=few and not types <= FLOATS, floats=floats)


def _prepared(x: torch.Tensor | Activations, weights: Sequence[CudaWeight], norm: Norm | None) -> Activations:
    if isinstance(x, Activations):
        assert norm is None, "activations are behind their norm already"
        return x
    return activations(x, weights, norm)


def _empty(x: Activations, columns: int, weight: CudaWeight) -> torch.Tensor:
    return torch.empty(x.rows, columns, dtype=torch.float32, device=weight.planes.low.device)


def _multiply(
    x: Activations, weights: Sequence[CudaWeight], epilogue: Epilogue, outs: Sequence[torch.Tensor]
) -> None:
    if x.rows <= MOST_COLUMNS:
        gemv(x, weights, epilogue, outs)
        return
    assert x.floats is not None
    if x.rows <= MOST_ROWS and not any(weight.planes.type in FLOATS for weight in weights):
        partials = gemm(x.floats, [weight.planes for weight in weights])
    else:
        partials = _dense_products(x.floats, weights)
    finish(partials, weights, x.projections, epilogue, outs)


def _dense_products(x: torch.Tensor, weights: Sequence[CudaWeight]) -> torch.Tensor:
    """x [T, n] times all weights by the library: [1, T, rows of all], of the type of x.

    Matrices are dequantised to bfloat16, those of float32 kept. (x is float32 only where there is one.)
    """
    products = x.new_empty(1, len(x), sum(weight.shape[0] for weight in weights))
    column = 0
    for weight in weights:
        m, n = weight.shape
        dtype = torch.float32 if weight.planes.type == GGMLType.F32 else torch.bfloat16
        rows = x.to(dtype)
        step = max(1, _SLAB_BYTES // (n * dtype.itemsize))
        for start in range(0, m, step):
            slab = range(start, min(start + step, m))
            to = products[0, :, column + slab.start : column + slab.stop]
            values = dequantize(weight.planes, slab, dtype)
            if to.dtype == dtype:
                torch.mm(rows, values.T, out=to)
            else:
                to.copy_(rows @ values.T)
        column += m
    return products
