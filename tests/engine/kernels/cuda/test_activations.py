"""Rounded activations: what they stand for, their sums, their norm and theta's projections."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.cuda.activations import prepare
from engine.kernels.operands import Norm
from tests.engine.kernels.cuda.operands import rows
from tests.engine.kernels.operands import distance

pytestmark = pytest.mark.triton


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 3), groups=st.integers(1, 70), seed=st.integers(0, 2**31))
def test_integers_stand_for_the_rows(device: torch.device, count: int, groups: int, seed: int) -> None:
    x = rows(seed, (count, 32 * groups))
    made = prepare(x.to(device), None, [], integers=True, floats=None)
    assert made.integers is not None
    assert made.scales is not None
    assert made.sums is not None
    assert made.floats is None
    assert made.projections is None
    wide = torch.unflatten(x.double(), 1, (-1, 32))
    scales, integers = made.scales.cpu().double(), torch.unflatten(made.integers.cpu().double(), 1, (-1, 32))
    torch.testing.assert_close(scales, wide.abs().amax(2) / 127, rtol=1e-6, atol=0)
    # Half a step, and what float32 makes of it.
    assert ((integers * scales[..., None] - wide).abs() <= 0.50001 * scales[..., None]).all()
    assert (integers.abs().amax(2) == 127).all()
    sums = made.sums.cpu()
    assert torch.equal((sums << 16) >> 16, integers[..., :16].sum(2).int())
    assert torch.equal(sums >> 16, integers.sum(2).int())


def test_rows_of_zeros_and_of_the_smallest_numbers(device: torch.device) -> None:
    x = torch.zeros(3, 64)
    x[1] = 1e-40
    x[2, 5] = -1e-30
    made = prepare(x.to(device), None, [], integers=True, floats=None)
    assert made.integers is not None
    assert made.scales is not None
    assert not made.integers[:2].any()
    assert not made.scales[:2].any()
    assert made.integers[2].tolist() == [-127 if at == 5 else 0 for at in range(64)]


@pytest.mark.parametrize("width", [48, 576, 4128])
def test_norm(device: torch.device, width: int) -> None:
    x = torch.randn(2, width + 8, generator=torch.Generator().manual_seed(1))[:, :width]
    weight = 1 + 0.1 * torch.randn(width, generator=torch.Generator().manual_seed(2))
    norm = Norm(weight.to(device), 1e-5)
    made = prepare(x.to(device), norm, [], integers=False, floats=torch.float32)
    assert made.floats is not None
    expected = torch.nn.functional.rms_norm(x.double(), (width,), weight.double(), 1e-5)
    assert distance(made.floats.cpu(), expected) < 1e-6


@pytest.mark.parametrize("norm", [False, True])
def test_projections_of_the_rows_before_rounding(device: torch.device, norm: bool) -> None:
    width = 576
    x = rows(3, (2, width))
    weight = 1 + 0.1 * torch.randn(width, generator=torch.Generator().manual_seed(2))
    factors = [
        torch.randint(-127, 128, (3, width), generator=torch.Generator().manual_seed(4)).to(torch.int8),
        torch.randn(64, width, generator=torch.Generator().manual_seed(5)),
        torch.randn(1, width, generator=torch.Generator().manual_seed(6)),
    ]
    vs = [factors[0].to(device), None, factors[1].to(device), factors[2].to(device)]
    made = prepare(
        x.to(device),
        Norm(weight.to(device), 1e-5) if norm else None,
        vs,
        integers=True,
        floats=torch.bfloat16,
    )
    wide = x.double()
    if norm:
        wide = torch.nn.functional.rms_norm(wide, (width,), weight.double(), 1e-5)
    assert made.projections is not None
    assert made.floats is not None
    assert made.floats.dtype == torch.bfloat16
    assert distance(made.projections.cpu(), wide @ torch.cat(factors).double().T) < 1e-6
