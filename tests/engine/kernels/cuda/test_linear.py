"""Products in each of the ways, chosen by the number of rows; the oracle computes in float64."""

import numpy as np
import pytest
import torch

from engine.kernels.cuda import gemm, linear
from engine.kernels.cuda.linear import activations, project, project_gated, project_onto
from engine.kernels.cuda.weight import CudaWeight
from engine.kernels.operands import Norm
from tests.engine.kernels.cuda.operands import Values, cuda_weight, rows, silu, star_product
from tests.engine.kernels.operands import distance

pytestmark = pytest.mark.triton

NORM = 1 + 0.1 * torch.randn(256, generator=torch.Generator().manual_seed(9))
COUNTS = (2, 9, 97)
"""One for each way."""


def normed(x: torch.Tensor) -> Values:
    """x behind the norm, in float64."""
    wide = x.double().cpu()
    found: Values = (wide / (wide.square().mean(1, keepdim=True) + 1e-5).sqrt() * NORM.double()).numpy()
    return found


def norm(device: torch.device) -> Norm:
    return Norm(NORM.to(device), 1e-5)


@pytest.mark.parametrize("count", COUNTS)
def test_queries_keys_and_values(device: torch.device, count: int) -> None:
    kinds = [("Q4_K", 5, True, 3), ("Q4_K", 3, False, 0), ("Q6_K", 2, False, 2)]
    made = [
        cuda_weight(name, (m, 256), device, seed=m, bias=bias, rank=rank) for name, m, bias, rank in kinds
    ]
    x = rows(1, (count, 256)).to(device)
    outs = project(x, [weight for weight, _ in made], norm(device))
    for (weight, values), out in zip(made, outs, strict=True):
        assert distance(out.cpu(), star_product(weight, values, normed(x), normed(x))) < 2e-2


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["Q5_1", "F32", "F16"])
def test_the_residual_stream(device: torch.device, name: str, count: int) -> None:
    weight, values = cuda_weight(name, (6, 192), device, rank=4, bias=True)
    x = rows(2, (count, 192)).to(device)
    before = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
    residual = before.clone().to(device)
    project_onto(x, weight, residual)
    exact = x.double().cpu().numpy()
    added = residual.cpu().double() - before.double()
    limit = 1e-5 if name == "F32" else 2e-2
    assert distance(added, star_product(weight, values, exact, exact)) < limit


@pytest.mark.parametrize("count", COUNTS)
def test_gate_and_up(device: torch.device, count: int) -> None:
    gate, gate_values = cuda_weight("Q4_K", (7, 256), device, seed=1, rank=2)
    up, up_values = cuda_weight("IQ4_XS", (7, 256), device, seed=2, bias=True)
    x = rows(3, (count, 256)).to(device)
    out = project_gated(x, gate, up, norm(device))
    h = normed(x)
    expected = silu(star_product(gate, gate_values, h, h)) * star_product(up, up_values, h, h)
    assert distance(out.cpu(), expected) < 2e-2


def test_a_matrix_of_float32_among_others(device: torch.device) -> None:
    made: list[tuple[CudaWeight, Values]] = [cuda_weight(name, (4, 256), device) for name in ("F32", "Q4_K")]
    x = rows(4, (12, 256)).to(device)
    exact = x.double().cpu().numpy()
    for (weight, values), out in zip(made, project(x, [weight for weight, _ in made]), strict=True):
        assert distance(out.cpu(), star_product(weight, values, exact, exact)) < 2e-2


def test_slabs_make_the_same_product(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = cuda_weight("Q4_0", (7, 64), device, rank=1)
    x = rows(5, (97, 64)).to(device)
    (whole,) = project(x, [weight])
    monkeypatch.setattr(linear, "_SLAB_BYTES", 3 * 64 * 2)
    (parts,) = project(x, [weight])
    torch.testing.assert_close(parts, whole, rtol=1e-2, atol=1e-2)


def test_a_split_changes_nothing(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = cuda_weight("Q8_0", (5, 2048), device)
    x = rows(6, (9, 2048)).to(device)
    assert gemm.split_columns(1, 64)[0] == 2
    (split,) = project(x, [weight])
    monkeypatch.setattr(gemm, "_PROGRAMS", 1)
    (whole,) = project(x, [weight])
    np.testing.assert_allclose(split.cpu(), whole.cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tiles", [1, 16, 64, 500])
@pytest.mark.parametrize("groups", [1, 8, 18, 128, 344, 448])
def test_splits_cover_all_columns_in_whole_tiles(tiles: int, groups: int) -> None:
    splits, of_split = gemm.split_columns(tiles, groups)
    assert of_split % 8 == 0
    assert (splits - 1) * of_split < groups <= splits * of_split


@pytest.mark.parametrize("count", [2, 17])
def test_activations_may_be_prepared_before(device: torch.device, count: int) -> None:
    weight, _ = cuda_weight("Q4_0", (5, 64), device, rank=2)
    x = rows(7, (count, 64)).to(device)
    (direct,) = project(x, [weight])
    (before,) = project(activations(x, [weight]), [weight])
    assert torch.equal(direct, before)
