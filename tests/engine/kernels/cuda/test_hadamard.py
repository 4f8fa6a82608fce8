"""The rotation of heads in place."""

import pytest
import torch

from engine.kernels.cuda.hadamard import rotate_heads
from engine.kv_cache import hadamard
from tests.engine.kernels.cuda.paged import random

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256, 6])
@pytest.mark.parametrize("rows", [1, 35])
def test_rotate_heads(rows: int, dim: int, device: torch.device) -> None:
    x = random(1, rows, 2, dim)
    rotated = x.clone().to(device)
    rotate_heads(rotated)
    torch.testing.assert_close(rotated.cpu(), hadamard(x), atol=1e-5, rtol=0)
