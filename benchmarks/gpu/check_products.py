"""Products with packed matrices against float64, at each number of rows that goes a way of its own."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.gpu.check import Check, distance, largest
from benchmarks.gpu.launches import launches
from benchmarks.gpu.random_blocks import random_blocks
from benchmarks.gpu.random_model import random_correction, random_weight
from benchmarks.gpu.settings import Settings
from engine.gguf import GGMLType
from engine.gguf import dequantize as dequantize_blocks
from engine.kernels import Norm
from engine.kernels.cuda.activations import Activations
from engine.kernels.cuda.dequantize import dequantize
from engine.kernels.cuda.embedding import embed
from engine.kernels.cuda.formats import FLOATS
from engine.kernels.cuda.gemv import MOST_COLUMNS
from engine.kernels.cuda.linear import activations, project, project_gated, project_onto
from engine.kernels.cuda.planes import pack_planes
from engine.kernels.cuda.weight import CudaWeight

EXACT = 2e-6
"""Of products of integers: the sums in float32 alone. Tests have 1e-6 for matrices a quarter as wide."""
BFLOAT = 5e-3
"""Of products of bfloat16: both sides of them are rounded, by up to 2^-9."""
ROUNDED = 2e-2
"""Where activations rounded to 8 bits are compared with those that are not."""
_EPSILON = 1e-5


def product_checks(settings: Settings, kinds: Sequence[GGMLType]) -> Iterator[Check]:
    """Of each type: products at each number of rows, the values themselves, and rows by their numbers."""
    for kind in kinds:
        generator = torch.Generator(settings.device).manual_seed(int(kind))
        shape = settings.sizes.check_shape
        blocks = random_blocks(kind, shape, generator)
        weight = CudaWeight(pack_planes(blocks, kind, shape), None)
        # The other reader of blocks, which knows nothing of planes.
        known = np.array(dequantize_blocks(blocks.cpu().numpy(), kind, shape), np.float32)
        values = torch.from_numpy(known).reshape(shape).to(generator.device)
        ids = torch.tensor([shape[0] - 1, 0, 3], device=generator.device)
        yield Check(f"dequantise {kind.name}", 0.0, partial(_dequantised, weight, values))
        yield Check(f"embed {kind.name}", 0.0, partial(_embedded, weight, values, ids))
        for count in settings.sizes.check_rows:
            x = random_rows(count, shape[1], generator)
            error = partial(_product_error, x, [weight], [values.double()])
            yield Check(f"product {kind.name}, {count} rows", _tolerance(kind, count), error)


def launch_checks(settings: Settings) -> Iterator[Check]:
    """The launches of the model itself, in their own shapes, at each number of rows."""
    generator = torch.Generator(settings.device).manual_seed(1)
    for launch in launches(settings.config):
        weights = launch.make(generator)
        values = [weight.planes.dequantize().double() for weight in weights]
        for count in settings.sizes.check_rows:
            x = random_rows(count, launch.width, generator)
            error = partial(_product_error, x, weights, values)
            yield Check(f"{launch.name}, {count} rows", EXACT if count <= MOST_COLUMNS else BFLOAT, error)


def star_checks(settings: Settings) -> Iterator[Check]:
    """Star products with bias behind a norm: stored, added to the residual stream, and gated."""
    generator = torch.Generator(settings.device).manual_seed(2)
    m, n = settings.sizes.check_shape
    made = [_star_weight(settings, kind, (m, n), generator) for kind in (GGMLType.Q4_K, GGMLType.Q6_K)]
    norm = Norm(1 + 0.1 * torch.randn(n, generator=generator, device=generator.device), _EPSILON)
    forms: dict[str, Callable[[torch.Tensor, Sequence[CudaWeight], Norm], float]] = {
        "stored": _stored_error,
        "added": _added_error,
        "gated": _gated_error,
    }
    for name, form in forms.items():
        for count in settings.sizes.check_rows:
            x = random_rows(count, n, generator)
            yield Check(f"star product {name}, {count} rows", ROUNDED, partial(form, x, made, norm))


def random_rows(count: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Activations float32 [count, width] whose groups of 32 have scales far apart."""
    device = generator.device
    scales = torch.randn(count, width // 32, 1, generator=generator, device=device).exp()
    return (scales * torch.randn(count, width // 32, 32, generator=generator, device=device)).flatten(1)


def _tolerance(kind: GGMLType, count: int) -> float:
    return EXACT if count <= MOST_COLUMNS or kind == GGMLType.F32 else BFLOAT


def _dequantised(weight: CudaWeight, values: torch.Tensor) -> float:
    return largest(dequantize(weight.planes, range(len(values)), torch.float32), values)


def _embedded(weight: CudaWeight, values: torch.Tensor, ids: torch.Tensor) -> float:
    return largest(embed(weight.planes, ids), values[ids])


def _product_error(x: torch.Tensor, weights: Sequence[CudaWeight], values: Sequence[torch.Tensor]) -> float:
    """The largest distance of all products, from those of the very activations that the kernels multiply."""
    prepared = activations(x, weights)
    outs = project(prepared, weights)
    return max(
        distance(out, _known(prepared, weight.planes.type) @ value.T)
        for out, weight, value in zip(outs, weights, values, strict=True)
    )


def _known(prepared: Activations, kind: GGMLType) -> torch.Tensor:
    """What a matrix of this type is multiplied with: float64 [T, n]."""
    if prepared.rows > MOST_COLUMNS or kind in FLOATS:
        assert prepared.floats is not None
        return prepared.floats.double()
    assert prepared.integers is not None
    assert prepared.scales is not None
    groups = torch.unflatten(prepared.integers.double(), 1, (-1, 32))
    return (groups * prepared.scales.double()[..., None]).flatten(1)


def _star_weight(
    settings: Settings, kind: GGMLType, shape: tuple[int, int], generator: torch.Generator
) -> CudaWeight:
    weight = random_weight(kind, shape, generator)
    weight.bias = torch.randn(shape[0], generator=generator, device=generator.device)
    weight.correct(random_correction(settings.rank, shape, generator))
    return weight


def _star_product(x: torch.Tensor, weight: CudaWeight, norm: Norm) -> torch.Tensor:
    """A * x plus bias behind the norm, float64 [T, m]."""
    wide = x.double()
    wide = wide / (wide.square().mean(1, keepdim=True) + norm.epsilon).sqrt() * norm.weight.double()
    assert weight.bias is not None
    assert weight.correction is not None
    theta = weight.correction
    added = theta.half_gamma.double() * (wide @ theta.v.double().T) @ theta.u.double()
    return wide @ weight.planes.dequantize().double().T + weight.bias.double() + added


def _stored_error(x: torch.Tensor, weights: Sequence[CudaWeight], norm: Norm) -> float:
    outs = project(x, weights, norm)
    pairs = zip(outs, weights, strict=True)
    return max(distance(out, _star_product(x, weight, norm)) for out, weight in pairs)


def _added_error(x: torch.Tensor, weights: Sequence[CudaWeight], norm: Norm) -> float:
    before = torch.ones(len(x), weights[0].shape[0], device=x.device)
    residual = before.clone()
    project_onto(x, weights[0], residual, norm)
    return distance(residual - before, _star_product(x, weights[0], norm))


def _gated_error(x: torch.Tensor, weights: Sequence[CudaWeight], norm: Norm) -> float:
    gate, up = (_star_product(x, weight, norm) for weight in weights)
    return distance(project_gated(x, weights[0], weights[1], norm), gate * torch.sigmoid(gate) * up)
