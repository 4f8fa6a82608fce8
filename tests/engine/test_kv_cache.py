"""The cache's formats and moves, against their definitions in numpy."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kv_cache import CacheFormat, KVCache, hadamard, hadamard_size, scale_groups

CPU = torch.device("cpu")
DIMS = (2, 16, 64, 80, 96, 128, 256)
QUANTISED = (CacheFormat.Q8, CacheFormat.Q4)

Array = npt.NDArray[np.float64]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hadamard_matrix(dim: int) -> Array:
    """Blocks by Sylvester's recursion along the diagonal."""
    block = np.ones((1, 1))
    while dim % (2 * len(block)) == 0:
        block = np.block([[block, block], [block, -block]])
    return (np.kron(np.eye(dim // len(block)), block) / math.sqrt(len(block))).astype(np.float64)


def allocate(format: CacheFormat, key_dim: int, value_dim: int, slots: int = 20, layers: int = 2) -> KVCache:
    return KVCache.allocate(
        layers=layers,
        slots=slots,
        kv_heads=2,
        key_dim=key_dim,
        value_dim=value_dim,
        dtype=torch.float16,
        device=CPU,
        format=format,
    )


@pytest.mark.parametrize(("dim", "size"), [(64, 64), (80, 16), (96, 32), (128, 128), (256, 256), (7, 1)])
def test_hadamard_is_a_product_with_its_matrix(dim: int, size: int) -> None:
    assert hadamard_size(dim) == size
    x = random(1, 3, 2, dim)
    np.testing.assert_allclose(hadamard(x), x.double().numpy() @ hadamard_matrix(dim), atol=1e-5)
    torch.testing.assert_close(hadamard(hadamard(x)), x, atol=1e-5, rtol=0)


def oracle_q8(x: Array) -> tuple[Array, Array]:
    scales = np.abs(x).max(-1) / 127
    return scales, np.clip(np.floor(x / scales[..., None] + 0.5), -127, 127)


def oracle_q4(x: Array) -> tuple[Array, Array]:
    furthest = np.abs(x).argmax(-1)[..., None]
    scales = np.take_along_axis(x, furthest, -1)[..., 0] / -8
    return scales, np.clip(np.floor(x / scales[..., None] + 0.5), -8, 7)


@pytest.mark.parametrize("format", QUANTISED)
@pytest.mark.parametrize("dim", DIMS)
def test_what_is_stored(format: CacheFormat, dim: int) -> None:
    x = random(dim, 5, 3, dim) * torch.logspace(-2, 2, 5)[:, None, None]
    stored, scales = format.quantise(x)
    like, scales_like = format.allocate(5, 3, dim, dtype=torch.float16, device=CPU)
    assert scales_like is not None
    assert (stored.shape, stored.dtype) == (like.shape, like.dtype)
    assert (scales.shape, scales.dtype) == (scales_like.shape, scales_like.dtype)
    whole = stored.numpy().astype(np.float64)
    if format is CacheFormat.Q4:
        octets = stored.numpy()
        whole = np.stack((octets % 16, octets // 16), -1).reshape(5, 3, dim) - 8.0
    for group in range(scale_groups(dim)):
        part = slice(32 * group, 32 * group + 32)
        oracle = oracle_q8 if format is CacheFormat.Q8 else oracle_q4
        expected_scales, expected = oracle(x[..., part].double().numpy())
        np.testing.assert_allclose(scales[..., group], expected_scales, rtol=2**-11)
        # The scale in half precision may carry a value over the border between two integers.
        assert np.abs(whole[..., part] - expected).max() <= 1
        assert (whole[..., part] != expected).mean() < 0.1
    read = whole * np.repeat(scales.double().numpy(), 32, -1)[..., :dim]
    np.testing.assert_allclose(format.dequantise(stored, scales), read, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(QUANTISED),
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=40),
)
def test_rounding_errors_are_within_a_step(format: CacheFormat, values: list[float]) -> None:
    x = torch.tensor(values + values)
    stored, scales = format.quantise(x)
    step = scales.float().abs().repeat_interleave(32)[: len(x)]
    error = (format.dequantise(stored, scales) - x).abs()
    # Nibbles have no +8: on that side the largest may be lost by a whole step. Scales below the normal
    # numbers of half precision are coarse themselves.
    slack = (0.5 if format is CacheFormat.Q8 else 1.0) * step + x.abs() * 2**-10 + 1e-5
    assert bool((error <= slack).all())


@pytest.mark.parametrize("format", QUANTISED)
def test_zeros_stay_zeros(format: CacheFormat) -> None:
    stored, scales = format.quantise(torch.zeros(2, 80))
    assert not scales.any()
    assert not format.dequantise(stored, scales).any()


@pytest.mark.parametrize("format", CacheFormat)
@pytest.mark.parametrize("dim", DIMS)
def test_bytes_of_a_row_are_those_that_are_allocated(format: CacheFormat, dim: int) -> None:
    rows, scales = format.allocate(1, dim, dtype=torch.float32, device=CPU)
    assert format.row_bytes(dim, torch.float32) == rows.nbytes + (0 if scales is None else scales.nbytes)


def test_what_the_formats_cost() -> None:
    assert [format.row_bytes(128) for format in CacheFormat] == [256, 136, 72]


def test_nibbles_want_an_even_dimension() -> None:
    with pytest.raises(ValueError, match="a head of 5 elements"):
        allocate(CacheFormat.Q4, 5, 4)


@pytest.mark.parametrize("format", CacheFormat)
def test_a_layer_knows_its_shape(format: CacheFormat) -> None:
    cache = allocate(format, 80, 64)
    layer = cache.layer(1)
    assert (layer.kv_heads, layer.key_dim, layer.value_dim) == (2, 80, 64)
    assert layer.keys.data_ptr() == cache.keys[1].data_ptr()
    assert (layer.value_scales is None) is (format is CacheFormat.F16)


def filled(format: CacheFormat, key_dim: int, value_dim: int) -> tuple[KVCache, Array]:
    """A cache with something in each slot, and its keys as they were meant, [layers, slots, heads, dim]."""
    cache = allocate(format, key_dim, value_dim)
    keys, values = random(1, 2, 20, 2, key_dim), random(2, 2, 20, 2, value_dim)
    if cache.key_scales is None or cache.value_scales is None:
        cache.keys.copy_(keys)
        cache.values.copy_(values)
    else:
        for rows, scales, x in (
            (cache.keys, cache.key_scales, keys),
            (cache.values, cache.value_scales, values),
        ):
            stored, stored_scales = format.quantise(hadamard(x))
            rows.copy_(stored)
            scales.copy_(stored_scales)
    return cache, meant(cache)


def meant(cache: KVCache) -> Array:
    if cache.key_scales is None:
        return cache.keys.double().numpy()
    rotated = cache.format.dequantise(cache.keys, cache.key_scales).double().numpy()
    product: Array = rotated @ hadamard_matrix(rotated.shape[-1])
    return product


def parts(cache: KVCache, slots: list[int]) -> list[torch.Tensor]:
    """All tensors of layer 1 at these slots."""
    tensors = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    return [tensor[1, slots].clone() for tensor in tensors if tensor is not None]


@pytest.mark.parametrize(("format", "tolerance"), list(zip(CacheFormat, (2e-3, 0.03, 0.4), strict=True)))
@pytest.mark.parametrize(("dim", "pairs"), [(64, 32), (80, 40), (96, 20), (128, 64), (16, 8)])
def test_move_turns_keys(format: CacheFormat, tolerance: float, dim: int, pairs: int) -> None:
    cache, before = filled(format, dim, 48)
    sources, targets = [3, 4, 5, 6], [5, 6, 12, 0]
    others = [slot for slot in range(20) if slot not in targets]
    kept, values = parts(cache, others), cache.values[1, sources].clone()
    value_scales = None if cache.value_scales is None else cache.value_scales[1, sources].clone()
    layer_0 = cache.keys[0].clone()
    angles = random(5, 4, pairs).double()
    turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
    cache.move(1, torch.tensor(sources), torch.tensor(targets), turns)

    expected = before[1, sources].copy()
    turned = expected[..., : 2 * pairs].reshape(4, 2, pairs, 2)
    product = (turned[..., 0] + 1j * turned[..., 1]) * np.exp(1j * angles.numpy())[:, None]
    expected[..., : 2 * pairs] = np.stack((product.real, product.imag), -1).reshape(4, 2, 2 * pairs)
    assert np.abs(meant(cache)[1, targets] - expected).max() < tolerance
    assert torch.equal(cache.values[1, targets], values)
    if value_scales is not None and cache.value_scales is not None:
        assert torch.equal(cache.value_scales[1, targets], value_scales)
    assert all(map(torch.equal, parts(cache, others), kept))
    assert torch.equal(cache.keys[0], layer_0)


@pytest.mark.parametrize("format", CacheFormat)
@pytest.mark.parametrize("dim", [64, 80, 256])
def test_a_move_without_a_turn_copies_to_the_bit(format: CacheFormat, dim: int) -> None:
    cache, _ = filled(format, dim, dim)
    expected = parts(cache, [7, 8, 9])
    cache.move(
        1, torch.tensor([7, 8, 9]), torch.tensor([1, 7, 2]), torch.ones(3, dim // 2, dtype=torch.complex64)
    )
    assert all(map(torch.equal, parts(cache, [1, 7, 2]), expected))
