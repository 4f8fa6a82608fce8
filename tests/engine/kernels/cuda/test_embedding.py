"""Rows of a packed matrix for ids are the file's values, whatever theta there is."""

import pytest
import torch

from engine.kernels.cuda.embedding import embed
from tests.engine.kernels.cuda.operands import cuda_weight

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("name", ["Q4_1", "Q6_K", "F16"])
def test_rows_for_ids(device: torch.device, name: str) -> None:
    weight, values = cuda_weight(name, (11, 512), device, rank=2)
    ids = torch.tensor([10, 0, 3, 3, 7])
    found = embed(weight.planes, ids.to(device))
    assert found.dtype == torch.float32
    assert torch.equal(found.cpu().double(), torch.from_numpy(values)[ids])
