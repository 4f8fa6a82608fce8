"""Rotary embedding and the way into the cache, against the reference kernels and the formats' definitions."""

import pytest
import torch

from engine.kernels import Rotation
from engine.kernels.cuda.rope import rope_store
from engine.kernels.reference import ReferenceKernels
from engine.kv_cache import CacheFormat, CacheLayer, hadamard
from tests.engine.kernels.cuda.paged import empty_cache, random, read

pytestmark = pytest.mark.triton

REFERENCE = ReferenceKernels(torch.device("cpu"), dense_bytes=0)
HEADS, KV_HEADS = 3, 1


def rotation(pairs: int, device: torch.device) -> Rotation:
    angles = random(5, 40, pairs)
    return Rotation(angles.cos().to(device), angles.sin().to(device))


def tensors(layer: CacheLayer) -> list[torch.Tensor]:
    every = (layer.keys, layer.values, layer.key_scales, layer.value_scales)
    return [tensor for tensor in every if tensor is not None]


@pytest.mark.parametrize("format", CacheFormat)
@pytest.mark.parametrize(
    ("key_dim", "value_dim", "pairs"),
    [(64, 64, 32), (80, 80, 40), (96, 64, 24), (128, 128, 64), (256, 256, 128), (16, 8, 8), (64, 48, 0)],
)
def test_turned_and_stored(
    format: CacheFormat, key_dim: int, value_dim: int, pairs: int, device: torch.device
) -> None:
    cache = empty_cache(format, 9, KV_HEADS, key_dim, value_dim, device)
    front, layer = cache.layer(0), cache.layer(1)
    for tensor in tensors(front) + tensors(layer):
        tensor.zero_()
    q, k, v = (
        random(at, 3, heads * dim)
        for at, (heads, dim) in enumerate(((HEADS, key_dim), (KV_HEADS, key_dim), (KV_HEADS, value_dim)))
    )
    # Outliers, which the rotation spreads.
    k[:, 3] *= 20
    positions, slots = torch.tensor([7, 39, 0]), torch.tensor([4, -1, 0])
    turns = rotation(pairs, device)
    found = rope_store(
        q.to(device), k.to(device), v.to(device), positions.to(device), slots.to(device), turns, layer
    ).cpu()

    cos, sin = turns.cos.cpu()[positions], turns.sin.cpu()[positions]
    queries = REFERENCE.rope(q.view(3, HEADS, key_dim), cos, sin)
    keys = REFERENCE.rope(k.view(3, KV_HEADS, key_dim), cos, sin)
    values = v.view(3, KV_HEADS, value_dim)
    assert found.dtype == torch.float16
    expected = hadamard(queries) if format.quantised else queries
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=2**-10)
    written = [4, 0]
    for x, rows, scales in ((keys, layer.keys, layer.key_scales), (values, layer.values, layer.value_scales)):
        x = x[[0, 2]]
        if scales is None:
            torch.testing.assert_close(rows[written].cpu().float(), x, atol=1e-4, rtol=2**-10)
            continue
        stored, stored_scales = format.quantise(hadamard(x))
        # Sums in another order: a value on the border between two integers may go either way.
        torch.testing.assert_close(scales[written].cpu(), stored_scales, atol=0, rtol=2**-10)
        step = stored_scales.float().abs().amax()
        difference = read(rows[written], scales[written], format) - read(stored, stored_scales, format)
        assert abs(difference).max() <= 1.1 * step
        assert (rows[written].cpu() != stored).float().mean() < 0.01
    others = [slot for slot in range(9) if slot not in written]
    assert not any(tensor[others].any() for tensor in tensors(layer)), "a slot of nobody was written"
    assert not any(tensor.any() for tensor in tensors(front)), "slot -1 was written"


@pytest.mark.parametrize("format", [CacheFormat.Q8, CacheFormat.Q4])
def test_zeros_stay_zeros(format: CacheFormat, device: torch.device) -> None:
    layer = empty_cache(format, 2, 1, 64, 64, device).layer(1)
    nothing = torch.zeros(1, 64, device=device)
    place = torch.zeros(1, dtype=torch.int64, device=device)
    rope_store(nothing, nothing, nothing, place, place, rotation(32, device), layer)
    assert not read(
        layer.keys[:1], layer.key_scales[:1] if layer.key_scales is not None else None, format
    ).any()
