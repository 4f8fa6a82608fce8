"""The reference kernels against float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import Batch, Span
from engine.gguf import GGMLType
from engine.kernels import FeedForward, Norm, select_kernels
from engine.kernels.reference import DenseWeight, PackedWeight, ReferenceKernels
from tests.engine.kernels.operands import CPU, batch_of, matrix, random

KERNELS = ReferenceKernels(CPU, dense_bytes=0)


def test_select_gives_the_reference() -> None:
    kernels = select_kernels(CPU, dense_bytes=0, threads=1, name="reference")
    assert isinstance(kernels, ReferenceKernels)
    assert kernels.name == "reference"


@pytest.mark.parametrize("name", ["F32", "F16", "Q4_1", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "packed"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_linear(name: str, dense: bool, bias: bool) -> None:
    kernels = ReferenceKernels(CPU, dense_bytes=2**20 if dense else 0)
    b = random(2, 48) if bias else None
    weight, values = matrix(kernels, name, (48, 256), bias=b)
    assert isinstance(weight, DenseWeight if dense else PackedWeight)
    x = random(1, 5, 256)
    expected = x.double().numpy() @ values.T + (0 if b is None else b.double().numpy())
    np.testing.assert_allclose(kernels.linear(x, weight).numpy(), expected, atol=1e-4)


def test_linear_in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.kernels.reference._SLAB_ELEMENTS", 7 * 256)
    weight, values = matrix(KERNELS, "Q4_1", (48, 256))
    assert isinstance(weight, PackedWeight)
    x = random(1, 3, 256)
    np.testing.assert_allclose(KERNELS.linear(x, weight), x.double().numpy() @ values.T, atol=1e-4)


def test_the_way_back_through_a_packed_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.kernels.reference._SLAB_ELEMENTS", 7 * 256)
    weight, values = matrix(KERNELS, "Q4_1", (48, 256))
    x = random(1, 3, 256).requires_grad_()
    kept: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = KERNELS.linear(x, weight)
    assert kept == [], "the graph holds dequantised weights"
    gradient = random(2, 3, 48)
    y.backward(gradient)  # type: ignore[no-untyped-call]
    assert x.grad is not None
    np.testing.assert_allclose(x.grad, gradient.double().numpy() @ values, atol=1e-4)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "packed"])
def test_embed(dense: bool) -> None:
    kernels = ReferenceKernels(CPU, dense_bytes=2**20 if dense else 0)
    weight, values = matrix(kernels, "Q4_1", (40, 64))
    ids = [39, 0, 7, 7]
    found = kernels.embed(torch.tensor(ids), weight)
    np.testing.assert_allclose(found.numpy(), values[ids], atol=1e-6)


def test_dense_copies_end_with_the_budget() -> None:
    kernels = ReferenceKernels(CPU, dense_bytes=64 * 32 * 4 + 1)
    data = np.zeros(64 * 32 * 4, np.uint8)
    first, second = (kernels.pack(data, GGMLType.F32, (64, 32)) for _ in range(2))
    assert isinstance(first, DenseWeight)
    assert isinstance(second, PackedWeight)


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1.0])
def test_rms_norm(epsilon: float) -> None:
    x, w = random(1, 4, 32), random(2, 32)
    a = x.double().numpy()
    expected = a / np.sqrt((a * a).mean(-1, keepdims=True) + epsilon) * w.double().numpy()
    np.testing.assert_allclose(KERNELS.rms_norm(x, Norm(w, epsilon)).numpy(), expected, atol=1e-5)


def test_linear_behind_a_norm() -> None:
    weight, _ = matrix(KERNELS, "Q4_1", (48, 256), bias=random(4, 48))
    x, norm = random(1, 3, 256), Norm(random(2, 256), 1e-5)
    expected = KERNELS.linear(KERNELS.rms_norm(x, norm), weight)
    assert torch.equal(KERNELS.linear(x, weight, norm), expected)


@pytest.mark.parametrize("turned", [8, 6, 2])
def test_rope_turns_neighbouring_pairs(turned: int) -> None:
    x, angles = random(1, 5, 3, 8), random(2, 5, turned // 2)
    a = x.double().numpy()
    # a pair is a complex number
    pairs = (a[..., 0:turned:2] + 1j * a[..., 1:turned:2]) * np.exp(1j * angles.double().numpy())[:, None]
    expected = a.copy()
    expected[..., 0:turned:2], expected[..., 1:turned:2] = pairs.real, pairs.imag
    np.testing.assert_allclose(KERNELS.rope(x, angles.cos(), angles.sin()).numpy(), expected, atol=1e-5)


def test_store_kv_writes_its_slots_alone() -> None:
    keys, values = torch.zeros(6, 2, 4), torch.zeros(6, 2, 3)
    k, v = random(1, 2, 2, 4), random(2, 2, 2, 3)
    KERNELS.store_kv(keys, values, k, v, torch.tensor([4, 1]))
    assert torch.equal(keys[[4, 1]], k)
    assert torch.equal(values[[4, 1]], v)
    assert not keys[[0, 2, 3, 5]].any()
    assert not values[[0, 2, 3, 5]].any()


def attention_oracle(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: Batch, scale: float
) -> np.ndarray:
    group = q.shape[1] // keys.shape[1]
    out = np.zeros((q.shape[0], q.shape[1], values.shape[-1]))
    for span in batch.spans:
        rows, context = span.stop - span.start, len(span.context_slots)
        for row in range(rows):
            seen = span.context_slots[: context - rows + row + 1]
            for head in range(q.shape[1]):
                k = keys[seen, head // group].double().numpy()
                v = values[seen, head // group].double().numpy()
                scores = k @ q[span.start + row, head].double().numpy() * scale
                odds = np.exp(scores - scores.max())
                out[span.start + row, head] = odds / odds.sum() @ v
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=5),
    st.sampled_from([(4, 4), (4, 2), (4, 1), (6, 3), (9, 3)]),
    st.integers(0, 1000),
)
def test_attention(shape: list[tuple[int, int]], heads: tuple[int, int], seed: int) -> None:
    spans = [(rows, rows + before) for rows, before in shape]
    batch = batch_of(spans, 80, seed)
    q = random(seed, batch.spans[-1].stop, heads[0], 8)
    keys, values = random(seed + 1, 80, heads[1], 8), random(seed + 2, 80, heads[1], 5)
    found = KERNELS.attention(q, keys, values, batch, 0.4)
    np.testing.assert_allclose(found.numpy(), attention_oracle(q, keys, values, batch, 0.4), atol=1e-5)


def test_attention_does_not_see_other_slots() -> None:
    batch = batch_of([(2, 5)], 20, 1)
    q, keys, values = random(1, 2, 4, 8), random(2, 20, 2, 8), random(3, 20, 2, 8)
    before = KERNELS.attention(q, keys, values, batch, 1.0)
    others = [slot for slot in range(20) if slot not in batch.spans[0].context_slots.tolist()]
    keys[others], values[others] = torch.nan, torch.nan
    assert torch.equal(KERNELS.attention(q, keys, values, batch, 1.0), before)


def test_attention_in_chunks_is_the_whole() -> None:
    q, keys, values = random(1, 9, 4, 8), random(2, 9, 2, 8), random(3, 9, 2, 8)
    none, slots = torch.zeros(0, dtype=torch.int64), torch.arange(9)

    def attend(start: int, stop: int) -> torch.Tensor:
        batch = Batch(none, none, none, (Span(0, stop - start, slots[:stop]),), none)
        return KERNELS.attention(q[start:stop], keys, values, batch, 0.3)

    parts = torch.cat([attend(0, 4), attend(4, 5), attend(5, 9)])
    torch.testing.assert_close(parts, attend(0, 9), atol=1e-5, rtol=1e-5)


def test_feed_forward() -> None:
    norm = Norm(random(1, 32), 1e-5)
    (gate, g), (up, u) = (matrix(KERNELS, name, (64, 32)) for name in ("F32", "Q8_0"))
    down, d = matrix(KERNELS, "F32", (32, 64))
    x = 4 * random(2, 3, 32)
    a = x.double().numpy()
    h = a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-5) * norm.weight.double().numpy()
    gated = h @ g.T
    expected = a + (gated / (1 + np.exp(-gated)) * (h @ u.T)) @ d.T
    found = KERNELS.forward(x, (FeedForward(norm, gate, up, down),), Batch.of_one(torch.arange(3)), None)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
