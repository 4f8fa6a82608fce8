"""Products for decoding, against float64 with the same rounded activations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.gguf import NATIVE_TYPES
from engine.kernels.cuda.activations import Activations, prepare
from engine.kernels.cuda.epilogue import Epilogue
from engine.kernels.cuda.gemv import MOST_COLUMNS, gemv
from engine.kernels.cuda.weight import CudaWeight
from tests.engine.kernels.cuda.operands import Values, cuda_weight, rows, silu, star_product
from tests.engine.kernels.operands import distance

pytestmark = pytest.mark.triton

TYPES = sorted(kind.name for kind in NATIVE_TYPES)
INTEGERS = sorted({*TYPES} - {"F32", "F16", "BF16"})


def prepared(x: torch.Tensor, weights: list[CudaWeight]) -> tuple[Activations, Values]:
    """Activations with all forms, and what their integers stand for in float64."""
    vs = [None if weight.theta is None else weight.theta.v for weight in weights]
    made = prepare(x, None, vs, integers=True, floats=torch.float32)
    assert made.integers is not None
    assert made.scales is not None
    groups = torch.unflatten(made.integers.double(), 1, (-1, 32)) * made.scales.double()[..., None]
    return made, groups.flatten(1).cpu().numpy()


@pytest.mark.parametrize("name", TYPES)
def test_product_of_each_type(device: torch.device, name: str) -> None:
    weight, values = cuda_weight(name, (3, 768), device)
    x = rows(1, (2, 768)).to(device)
    made, rounded = prepared(x, [weight])
    out = torch.full((2, 3), torch.nan, device=device)
    gemv(made, [weight], Epilogue.STORE, [out])
    expected = star_product(
        weight, values, x.double().cpu().numpy() if name in ("F32", "F16", "BF16") else rounded, rounded
    )
    assert distance(out.cpu(), expected) < 1e-6


@settings(max_examples=6, deadline=None)
@given(
    name=st.sampled_from(INTEGERS),
    m=st.integers(1, 5),
    blocks=st.sampled_from([1, 2, 9, 15]),
    count=st.integers(1, MOST_COLUMNS),
    seed=st.integers(0, 2**31),
)
def test_any_shape(device: torch.device, name: str, m: int, blocks: int, count: int, seed: int) -> None:
    n = blocks * (256 if "K" in name or name == "IQ4_XS" else 64)
    weight, values = cuda_weight(name, (m, n), device, seed=seed)
    x = rows(seed, (count, n)).to(device)
    made, rounded = prepared(x, [weight])
    out = torch.full((count, m), torch.nan, device=device)
    gemv(made, [weight], Epilogue.STORE, [out])
    assert distance(out.cpu(), star_product(weight, values, rounded, rounded)) < 1e-6


def test_one_launch_for_matrices_of_different_types(device: torch.device) -> None:
    made_of = [("Q4_K", 5, True, 3), ("F16", 3, False, 0), ("Q6_K", 4, True, 5)]
    weights, values = zip(
        *(
            cuda_weight(name, (m, 512), device, seed=m, bias=bias, rank=rank)
            for name, m, bias, rank in made_of
        ),
        strict=True,
    )
    x = rows(2, (2, 512)).to(device)
    made, rounded = prepared(x, list(weights))
    exact = x.double().cpu().numpy()
    # One tensor of all results: each matrix writes to its part.
    whole = torch.full((2, 12), torch.nan, device=device)
    gemv(made, weights, Epilogue.STORE, torch.split(whole, [5, 3, 4], 1))
    for weight, value, out in zip(weights, values, torch.split(whole, [5, 3, 4], 1), strict=True):
        inputs = exact if weight.planes.scales is None else rounded
        assert distance(out.cpu(), star_product(weight, value, inputs, exact)) < 1e-6


def test_products_are_added_to_the_residual_stream(device: torch.device) -> None:
    weight, values = cuda_weight("Q5_0", (5, 576), device, bias=True, rank=4)
    x = rows(3, (3, 576)).to(device)
    made, rounded = prepared(x, [weight])
    before = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    residual = before.clone().to(device)
    gemv(made, [weight], Epilogue.ADD, [residual])
    expected = before.double().numpy() + star_product(weight, values, rounded, x.double().cpu().numpy())
    assert distance(residual.cpu(), expected) < 1e-6


def test_gate_and_up_become_one_result(device: torch.device) -> None:
    gate, gate_values = cuda_weight("Q4_K", (5, 256), device, seed=1, rank=2)
    up, up_values = cuda_weight("Q8_0", (5, 256), device, seed=2, bias=True, rank=1)
    x = rows(4, (2, 256)).to(device)
    made, rounded = prepared(x, [gate, up])
    exact = x.double().cpu().numpy()
    out = torch.full((2, 5), torch.nan, device=device)
    gemv(made, [gate, up], Epilogue.GATE, [out])
    expected = silu(star_product(gate, gate_values, rounded, exact)) * star_product(
        up, up_values, rounded, exact
    )
    assert distance(out.cpu(), expected) < 1e-6


def test_gamma_is_read_at_each_launch(device: torch.device) -> None:
    weight, values = cuda_weight("Q4_0", (4, 64), device, rank=3)
    x = rows(5, (1, 64)).to(device)
    made, rounded = prepared(x, [weight])
    found = []
    assert weight.theta is not None
    for gamma in (0.0, 1.0):
        weight.theta.half_gamma.fill_(gamma)
        out = torch.empty(1, 4, device=device)
        gemv(made, [weight], Epilogue.STORE, [out])
        found.append(out.double().cpu().numpy())
    weight.correct(None)
    plain = star_product(weight, values, rounded, rounded)
    np.testing.assert_allclose(found[0], plain, rtol=1e-5)
    assert np.linalg.norm(found[1] - plain) > 1e-3 * np.linalg.norm(plain)
