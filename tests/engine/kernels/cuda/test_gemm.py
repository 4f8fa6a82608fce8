"""Tiles of weights times tens of rows: exact up to what bfloat16 loses of both."""

import pytest
import torch

from engine.kernels.cuda.formats import FORMATS
from engine.kernels.cuda.gemm import gemm
from tests.engine.kernels.cuda.operands import cuda_weight, rows
from tests.engine.kernels.operands import distance

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("name", sorted(kind.name for kind in FORMATS))
def test_product_of_each_type(device: torch.device, name: str) -> None:
    weight, values = cuda_weight(name, (70, 512), device)
    x = rows(1, (11, 512)).bfloat16()
    found = gemm(x.to(device), [weight.planes])
    assert found.shape[1:] == (11, 70)
    # The interpreter cuts bfloat16 off where cards round.
    assert distance(found.sum(0).cpu(), x.double().numpy() @ values.T) < 5e-3


@pytest.mark.parametrize(("m", "n", "count"), [(1, 32, 9), (65, 576, 16), (64, 960, 33)])
def test_shapes_that_are_no_multiple_of_a_tile(device: torch.device, m: int, n: int, count: int) -> None:
    weight, values = cuda_weight("Q4_1", (m, n), device)
    x = rows(2, (count, n)).bfloat16()
    found = gemm(x.to(device), [weight.planes])
    assert distance(found.sum(0).cpu(), x.double().numpy() @ values.T) < 5e-3


def test_matrices_stand_side_by_side(device: torch.device) -> None:
    made = [
        cuda_weight(name, (m, 256), device, seed=m) for name, m in (("Q4_K", 66), ("Q6_K", 3), ("Q2_K", 5))
    ]
    x = rows(3, (10, 256)).bfloat16()
    found = gemm(x.to(device), [weight.planes for weight, _ in made]).sum(0).cpu()
    for (_, values), part in zip(made, torch.split(found, [66, 3, 5], 1), strict=True):
        assert distance(part, x.double().numpy() @ values.T) < 5e-3
