"""The gate of a feed-forward layer."""

import numpy as np
import pytest
import torch

from engine.kernels.cuda.silu import silu_mul
from tests.engine.kernels.cuda.paged import random

pytestmark = pytest.mark.triton


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("shape", [(1, 5), (3, 1000)])
def test_silu_mul(dtype: torch.dtype, tolerance: float, shape: tuple[int, int], device: torch.device) -> None:
    gate, up = 5 * random(1, *shape), random(2, *shape)
    gate[0, 0] = -80
    found = silu_mul(gate.to(device), up.to(device), dtype)
    assert found.dtype == dtype
    g, u = gate.double().numpy(), up.double().numpy()
    np.testing.assert_allclose(found.cpu().double(), g / (1 + np.exp(-g)) * u, rtol=tolerance, atol=1e-30)
