"""Packed matrices as floats: the file's values, and those rounded once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.gguf import NATIVE_TYPES
from engine.kernels.cuda.dequantize import dequantize
from tests.engine.kernels.cuda.operands import cuda_weight

pytestmark = pytest.mark.triton

TYPES = sorted(kind.name for kind in NATIVE_TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_values_are_those_of_the_file(device: torch.device, name: str) -> None:
    weight, values = cuda_weight(name, (6, 768), device)
    found = dequantize(weight.planes, range(6), torch.float32)
    assert torch.equal(found.cpu().double(), torch.from_numpy(values))


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(TYPES),
    blocks=st.integers(1, 5),
    start=st.integers(0, 4),
    count=st.integers(1, 5),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_a_slab_of_rows(
    device: torch.device, name: str, blocks: int, start: int, count: int, dtype: torch.dtype
) -> None:
    n = blocks * (256 if "K" in name or name == "IQ4_XS" else 32)
    weight, values = cuda_weight(name, (9, n), device)
    found = dequantize(weight.planes, range(start, start + count), dtype)
    assert torch.equal(found.cpu(), torch.from_numpy(values[start : start + count]).float().to(dtype))


def test_bfloat16(device: torch.device) -> None:
    weight, values = cuda_weight("Q4_K", (3, 256), device)
    found = dequantize(weight.planes, range(3), torch.bfloat16)
    assert found.dtype == torch.bfloat16
    # Cards round to the nearest; the interpreter cuts off.
    torch.testing.assert_close(found.cpu().double(), torch.from_numpy(values), rtol=2**-7, atol=0)
