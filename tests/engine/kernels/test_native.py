"""The native kernels: against float64 and the reference kernels, and against themselves to the bit."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import Batch
from engine.errors import ConfigError
from engine.gguf import NATIVE_TYPES, GGMLType, dequantize
from engine.kernels import Correction, FeedForward, Kernels, Norm, SelfAttention, Weight, select_kernels
from engine.kernels.native import NativeKernels
from engine.kernels.reference import ReferenceKernels
from engine.kv_cache import KVCache
from engine.native import library, native_kernels
from tests.engine.kernels.operands import (
    CPU,
    Heads,
    attention,
    batch_of,
    between_ties,
    cache_for,
    copy,
    correction,
    distance,
    feed_forward,
    is_coarse,
    matrix,
    part_of,
    plain,
    random,
    zeros,
)
from tests.support.gguf_files import random_tensor

NAMES: Any = native_kernels() or (
    pytest.param("none", marks=pytest.mark.skip("the native library is not built")),
)
TYPES = sorted(kind.name for kind in NATIVE_TYPES)
FLOAT_TYPES = {"F32", "F16", "BF16"}
REFERENCE = ReferenceKernels(CPU, dense_bytes=2**30)

EXACT = 1e-5
"""Relative error of products; 1e-3 is what is asked for."""

Layers = tuple[SelfAttention | FeedForward, ...]


@pytest.fixture(scope="module", params=NAMES)
def kernels(request: pytest.FixtureRequest) -> NativeKernels:
    """On two threads."""
    return NativeKernels(request.param, 2)


def columns_of(name: str, blocks: int) -> int:
    """Columns for so many blocks; float types have odd ones."""
    return 23 * blocks + 1 if name in FLOAT_TYPES else blocks * GGMLType[name].block_size


class TestChoice:
    """Which kernels are chosen."""

    @pytest.mark.parametrize("name", NAMES)
    def test_each_can_be_asked_for(self, name: str) -> None:
        chosen = select_kernels(CPU, dense_bytes=0, threads=1, name=name)
        assert isinstance(chosen, NativeKernels)
        assert (chosen.name, chosen.device, chosen.cache_dtype) == (name, CPU, torch.float16)

    def test_the_fastest_is_chosen(self) -> None:
        chosen = select_kernels(CPU, dense_bytes=0, threads=1)
        assert chosen.name == (*native_kernels(), "reference")[0]

    @pytest.mark.skipif(not native_kernels(), reason="the native library is not built")
    def test_a_processor_without_avx2_has_the_portable_kernels(self) -> None:
        assert native_kernels(features=0) == ("portable",)

    @pytest.mark.parametrize("name", ["magic", "", "AVX2"])
    def test_an_unknown_name(self, name: str) -> None:
        there = ", ".join((*native_kernels(), "reference"))
        with pytest.raises(ConfigError, match=f"no kernels '{name}' on cpu; there are: {there}"):
            select_kernels(CPU, dense_bytes=0, threads=1, name=name)

    @pytest.fixture
    def away(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
        """Where the library is looked for from now on: nothing is there."""
        path = tmp_path / "library.so"
        with monkeypatch.context() as patched:
            patched.setattr(library, "_FILE", path)
            patched.delenv(library.TEST_LIBRARY, raising=False)
            library.open_library.cache_clear()
            yield path
        library.open_library.cache_clear()

    @pytest.mark.parametrize("content", [None, b"", b"no library"])
    def test_without_a_library_there_is_the_reference(self, away: Path, content: bytes | None) -> None:
        if content is not None:
            away.write_bytes(content)
        assert native_kernels() == ()
        assert isinstance(select_kernels(CPU, dense_bytes=0, threads=1), ReferenceKernels)
        with pytest.raises(ConfigError, match="no kernels 'avx2' on cpu; there are: reference"):
            select_kernels(CPU, dense_bytes=0, threads=1, name="avx2")

    def test_other_devices_have_the_reference(self) -> None:
        assert isinstance(select_kernels(torch.device("meta"), dense_bytes=0, threads=1), ReferenceKernels)


class TestMatrix:
    """Packed matrices: their rows, and their products."""

    @pytest.mark.parametrize("name", TYPES)
    def test_embed_gives_the_rows(self, kernels: NativeKernels, name: str) -> None:
        weight, values = matrix(kernels, name, (21, columns_of(name, 2)))
        ids = [20, 0, 7, 7, 8, 15, *range(21)]
        found = kernels.embed(torch.tensor(ids), weight).numpy()
        np.testing.assert_allclose(found, values[ids], rtol=1e-6, atol=1e-6 * np.abs(values).max())

    @pytest.mark.parametrize("name", TYPES)
    def test_every_type(self, kernels: NativeKernels, name: str) -> None:
        check_linear(kernels, name, 21, columns_of(name, 2), 5, seed=1)

    @pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 130])
    @pytest.mark.parametrize("name", ["F16", "Q4_1", "Q8_0", "Q6_K"])
    def test_rows_around_whole_tiles(self, kernels: NativeKernels, name: str, rows: int) -> None:
        check_linear(kernels, name, 17, columns_of(name, 1), rows, seed=2)

    def test_any_shape(self, kernels: NativeKernels) -> None:
        @settings(max_examples=60, deadline=None)
        @given(
            st.sampled_from(TYPES),
            st.integers(1, 40),
            st.integers(1, 3),
            st.integers(1, 70),
            st.integers(1, 140),
            st.booleans(),
            st.integers(0, 1000),
        )
        def agrees(name: str, m: int, blocks: int, odd: int, rows: int, bias: bool, seed: int) -> None:
            columns = odd if name in FLOAT_TYPES else columns_of(name, blocks)
            check_linear(kernels, name, m, columns, rows, seed, bias)

        agrees()

    @pytest.mark.parametrize("name", ["F32", "Q4_1", "Q8_0"])
    def test_bias_is_added(self, kernels: NativeKernels, name: str) -> None:
        bias = 100 * random(5, 21)
        (with_bias, _), (without, _) = (matrix(kernels, name, (21, 64), 3, given) for given in (bias, None))
        x = random(1, 9, 64)
        assert torch.equal(kernels.linear(x, with_bias), kernels.linear(x, without) + bias)

    @pytest.mark.parametrize("name", ["TQ2_0", "MXFP4", "Q1_0", "IQ2_XXS", "F64"])
    def test_other_types_are_dequantised(self, kernels: NativeKernels, name: str) -> None:
        kind, shape = GGMLType[name], (11, 256)
        assert kind not in NATIVE_TYPES
        data = np.ascontiguousarray(random_tensor(np.random.default_rng(1), name, shape).data).view(np.uint8)
        values = dequantize(data, kind, shape)
        weight = kernels.pack(data, kind, shape)
        kernels.settle()
        assert torch.equal(kernels.embed(torch.arange(11), weight), torch.from_numpy(values))
        x = random(2, 3, 256)
        assert distance(kernels.linear(x, weight), x.double().numpy() @ values.astype(np.float64).T) < EXACT

    def test_no_rows(self, kernels: NativeKernels) -> None:
        weight, _ = matrix(kernels, "Q4_1", (21, 64))
        assert kernels.linear(torch.zeros(0, 64), weight).shape == (0, 21)
        assert kernels.embed(torch.zeros(0, dtype=torch.int64), weight).shape == (0, 64)

    def test_activations_that_are_not_contiguous(self, kernels: NativeKernels) -> None:
        weight, _ = matrix(kernels, "Q4_1", (21, 64))
        x = random(1, 64, 5).T
        assert torch.equal(kernels.linear(x, weight), kernels.linear(x.contiguous(), weight))


def check_linear(
    kernels: Kernels, name: str, m: int, columns: int, rows: int, seed: int, bias: bool = False
) -> None:
    """The product is that of float64, of activations of 8 bits in front of integers."""
    b = random(seed, m) if bias else None
    weight, values = matrix(kernels, name, (m, columns), seed, b)
    if name in FLOAT_TYPES:
        x = random(seed, rows, columns)
        rounded = x.double().numpy()
    else:
        x, rounded = between_ties(seed, rows, columns)
    expected = rounded @ values.T + (0 if b is None else b.double().numpy())
    # A product whose terms happen to cancel is as exact as another of such terms, and a small part of it.
    usual = np.linalg.norm(np.abs(rounded) @ np.abs(values).T) * columns**-0.5
    error = np.linalg.norm(kernels.linear(x, weight).double().numpy() - expected)
    assert error <= EXACT * max(np.linalg.norm(expected), usual)


class TestRounding:
    """What is left of activations in front of a matrix."""

    @staticmethod
    def blocks() -> dict[str, torch.Tensor]:
        """Rows of two blocks of 32 each."""
        x = random(1, 5, 64)
        outlier, half = x.clone(), x.clone()
        outlier[:, 7], half[:, 32:] = -1000, 0
        return {
            "usual": x,
            "zeros": torch.zeros(5, 64),
            "huge": x * 1e30,
            "tiny": x * 1e-30,
            "an outlier": outlier,
            "a block of zeros": half,
            "all alike": torch.full((5, 64), -0.3),
            "from tiny to huge": x * torch.logspace(-20, 20, 64),
        }

    @pytest.mark.parametrize("case", list(blocks()))
    @pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
    def test_none_in_front_of_floats(self, kernels: NativeKernels, name: str, case: str) -> None:
        x = self.blocks()[case]
        identity = torch.eye(64).to({"F32": torch.float32, "F16": torch.float16}.get(name, torch.bfloat16))
        weight = kernels.pack(identity.view(torch.uint8).numpy(), GGMLType[name], (64, 64))
        kernels.settle()
        assert torch.equal(kernels.linear(x, weight), x)

    @pytest.mark.parametrize("case", list(blocks()))
    def test_to_8_bits_in_front_of_integers(self, kernels: NativeKernels, case: str) -> None:
        x = self.blocks()[case]
        found = kernels.linear(x, integer_identity(kernels)).double().numpy().reshape(5, 2, 32)
        given = x.double().numpy().reshape(5, 2, 32)
        scale = np.abs(given).max(-1, keepdims=True) / 127
        coarse = is_coarse(scale)
        assert (np.abs(found - given) <= scale * np.where(coarse, 0.51 / 254, 0.5001)).all()
        steps = np.divide(given, scale, out=np.zeros_like(given), where=scale > 0)
        clear = (np.abs(steps - np.floor(steps) - 0.5) > 1e-3) & ~coarse
        np.testing.assert_allclose(found[clear], (np.rint(steps) * scale)[clear], rtol=1e-6)
        assert coarse.any() == (case not in ("zeros", "all alike"))

    def test_what_is_too_small_for_its_steps_is_nothing(self, kernels: NativeKernels) -> None:
        x = torch.zeros(2, 64)
        x[:, 32:] = 1e-36 * random(1, 2, 32)
        # In a coarse block, whose second steps are 127 * 254 times as small. Without a sanitizer the sums of
        # what such steps would be converted to may happen to be 0.
        x[:, 3] = 5e-35
        weight, _ = matrix(kernels, "Q4_1", (21, 64))
        assert kernels.linear(x, weight).abs().max() < 1e-33

    def test_infinities_stay_in_their_row(self, kernels: NativeKernels) -> None:
        x = random(1, 5, 64)
        broken = x.clone()
        broken[2, 3] = torch.inf
        weight, _ = matrix(kernels, "Q4_1", (21, 64))
        found, expected = kernels.linear(broken, weight), kernels.linear(x, weight)
        assert not found[2].isfinite().all()
        assert torch.equal(found[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])


def integer_identity(kernels: Kernels) -> Weight:
    """The 64 x 64 identity in Q8_0, which is exact in it."""
    blocks = np.zeros((64, 2), [("scale", np.float16), ("integers", np.int8, 32)])
    blocks["scale"] = 1
    blocks["integers"] = np.eye(64).reshape(64, 2, 32)
    weight = kernels.pack(blocks.view(np.uint8), GGMLType.Q8_0, (64, 64))
    kernels.settle()
    return weight


class TestTheta:
    """The correction of products."""

    @pytest.mark.parametrize("rank", [0, 1, 4, 7])
    @pytest.mark.parametrize(("name", "columns"), [("F32", 37), ("Q4_1", 64)])
    def test_it_is_added(self, kernels: NativeKernels, name: str, columns: int, rank: int) -> None:
        weight, _ = matrix(kernels, name, (21, columns))
        x = random(1, 70, columns)
        before = kernels.linear(x, weight)
        theta = correction(2, rank, (21, columns))
        weight.correct(theta)
        assert distance(kernels.linear(x, weight) - before, by_definition(x, theta)) < 1e-4

    @pytest.mark.parametrize("sizes", [(1, 1), (1e-6, 1), (1e-6, 1e3), (1e3, 1e-6), (1e-6, 1e-6), (1e3, 1e3)])
    @pytest.mark.parametrize("name", ["F32", "Q4_1"])
    def test_factors_of_any_size(self, kernels: NativeKernels, name: str, sizes: tuple[float, float]) -> None:
        """Each row of a factor has a scale of its own."""
        weight, x = zeros(kernels, name, (21, 64)), random(1, 9, 64)
        theta = correction(2, 4, (21, 64))
        spread = torch.tensor([1.0, 1e-5, 1e4, 0.0])[:, None]
        theta = Correction(theta.u * spread * sizes[0], theta.v * sizes[1], theta.half_gamma)
        weight.correct(theta)
        assert distance(kernels.linear(x, weight), by_definition(x, theta)) < 1e-4

    @pytest.mark.parametrize("name", ["F32", "Q4_1", "Q6_K"])
    def test_gamma_0_is_the_plain_product_bit_for_bit(self, kernels: NativeKernels, name: str) -> None:
        weight, _ = matrix(kernels, name, (21, 256))
        x = random(1, 70, 256)
        before = kernels.linear(x, weight)
        weight.correct(correction(2, 4, (21, 256), half_gamma=0))
        assert torch.equal(kernels.linear(x, weight), before)

    def test_gamma_is_read_at_each_product(self, kernels: NativeKernels) -> None:
        weight, x = zeros(kernels, "Q4_1", (21, 64)), random(1, 9, 64)
        theta = correction(2, 4, (21, 64), half_gamma=0.1)
        weight.correct(theta)
        once = kernels.linear(x, weight)
        theta.half_gamma.fill_(0.4)
        torch.testing.assert_close(kernels.linear(x, weight), 4 * once)

    def test_it_can_be_replaced_and_taken_away(self, kernels: NativeKernels) -> None:
        weight, _ = matrix(kernels, "Q4_1", (21, 64))
        x = random(1, 9, 64)
        before = kernels.linear(x, weight)
        small, large = correction(2, 1, (21, 64)), correction(4, 7, (21, 64))
        for theta in (small, large, small):
            weight.correct(theta)
            assert weight.correction is theta
            assert distance(kernels.linear(x, weight) - before, by_definition(x, theta)) < 1e-4
        weight.correct(None)
        assert weight.correction is None
        assert torch.equal(kernels.linear(x, weight), before)

    def test_the_rows_of_the_matrix_stay(self, kernels: NativeKernels) -> None:
        weight, values = matrix(kernels, "Q8_0", (21, 64))
        weight.correct(correction(2, 4, (21, 64)))
        np.testing.assert_allclose(kernels.embed(torch.arange(21), weight), values, rtol=1e-6)

    def test_factors_need_not_be_contiguous(self, kernels: NativeKernels) -> None:
        weight, x = zeros(kernels, "F32", (21, 64)), random(1, 9, 64)
        theta = correction(2, 4, (21, 64))
        theta = Correction(
            theta.u.T.contiguous().T, theta.v.repeat_interleave(2, 1)[:, ::2], theta.half_gamma
        )
        weight.correct(theta)
        assert distance(kernels.linear(x, weight), by_definition(x, theta)) < 1e-4

    def test_factors_of_no_file_are_rounded_to_8_bits(self, kernels: NativeKernels) -> None:
        weight, x = zeros(kernels, "F32", (21, 64)), random(1, 9, 64)
        theta = Correction(random(2, 4, 21), random(3, 4, 64), torch.tensor(0.4))
        weight.correct(theta)
        assert 1e-4 < distance(kernels.linear(x, weight), by_definition(x, theta)) < 2e-2


def by_definition(x: torch.Tensor, theta: Correction) -> np.ndarray:
    u, v = theta.u.double().numpy(), theta.v.double().numpy()
    product: np.ndarray = float(theta.half_gamma) * x.double().numpy() @ v.T @ u
    return product


class TestNorm:
    """The norm in front of a product."""

    @pytest.mark.parametrize("width", [1, 5, 8, 33, 64, 100])
    @pytest.mark.parametrize("epsilon", [1e-5, 1.0])
    def test_against_float64(self, kernels: NativeKernels, width: int, epsilon: float) -> None:
        x, norm = 3 * random(1, 9, width), Norm(random(2, width), epsilon)
        x[4] = 0
        a = x.double().numpy()
        expected = a / np.sqrt((a * a).mean(-1, keepdims=True) + epsilon) * norm.weight.double().numpy()
        found = kernels.linear(x, plain(kernels, torch.eye(width)), norm)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)

    @pytest.mark.parametrize("name", ["F32", "Q4_1", "Q6_K"])
    def test_what_is_normed_is_what_is_rounded(self, kernels: NativeKernels, name: str) -> None:
        weight, _ = matrix(kernels, name, (21, 256))
        x, norm = 3 * random(1, 70, 256), Norm(random(2, 256), 1e-5)
        normed = kernels.linear(x, plain(kernels, torch.eye(256)), norm)
        assert torch.equal(kernels.linear(x, weight, norm), kernels.linear(normed, weight))

    def test_the_input_stays(self, kernels: NativeKernels) -> None:
        x, norm = random(1, 9, 64), Norm(random(2, 64), 1e-5)
        before = x.clone()
        kernels.linear(x, matrix(kernels, "Q4_1", (21, 64))[0], norm)
        assert torch.equal(x, before)


HEADS = [
    Heads(1, 1, 4, 4, 4),
    Heads(3, 1, 6, 6, 6),
    Heads(8, 1, 8, 8, 8),
    Heads(4, 4, 20, 20, 20),
    Heads(6, 2, 64, 64, 64),
    Heads(16, 2, 64, 64, 32),
    Heads(3, 3, 80, 80, 80),
    Heads(8, 1, 128, 128, 128),
    Heads(6, 2, 20, 8, 10),
    Heads(3, 1, 8, 80, 2),
    Heads(2, 2, 64, 6, 62),
]
"""Groups of 1, 3 and 8; heads that are whole vectors and others; keys that turn in part."""

SPANS = [(1, 1), (1, 63), (1, 64), (1, 65), (1, 200), (2, 2), (5, 65), (64, 64), (65, 200), (3, 130)]
"""Rows and context: decoding, whole prompts and chunks of prompts, around a tile of 64."""
SLOTS = 900


class TestForward:
    """Layers against the reference kernels, which get a cache in half precision too."""

    @pytest.mark.parametrize("shape", HEADS, ids=str)
    @pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
    def test_attention(self, kernels: NativeKernels, shape: Heads, bias: bool) -> None:
        check_forward(
            kernels, shape, lambda of: (attention(of, shape, 20, bias=bias),), batch_of(SPANS, SLOTS)
        )

    @pytest.mark.parametrize("span", SPANS, ids=str)
    def test_attention_of_one_span(self, kernels: NativeKernels, span: tuple[int, int]) -> None:
        shape = Heads(6, 2, 64, 64, 64)
        check_forward(kernels, shape, lambda of: (attention(of, shape, 20),), batch_of([span], SLOTS))

    @pytest.mark.parametrize(("width", "hidden"), [(20, 33), (64, 128), (1, 1)])
    def test_feed_forward(self, kernels: NativeKernels, width: int, hidden: int) -> None:
        shape = Heads(1, 1, 4, 4, 4)
        batch = batch_of([(70, 70)], SLOTS)
        check_forward(kernels, shape, lambda of: (feed_forward(of, width, hidden),), batch, width)

    def test_layers_in_turn(self, kernels: NativeKernels) -> None:
        shape = Heads(6, 2, 20, 8, 10)

        def layers(of: Kernels) -> Layers:
            first, second = (attention(of, shape, 20, bias=bool(layer), layer=layer) for layer in range(2))
            return first, feed_forward(of, 20, 40), second, feed_forward(of, 20, 24)

        check_forward(kernels, shape, layers, batch_of(SPANS, SLOTS), cache_layers=2)

    def test_theta_of_each_matrix(self, kernels: NativeKernels) -> None:
        shape = Heads(6, 2, 20, 8, 10)

        def layers(of: Kernels) -> Layers:
            built = attention(of, shape, 20), feed_forward(of, 20, 40)
            give_theta(built)
            return built

        check_forward(kernels, shape, layers, batch_of(SPANS, SLOTS), within=2e-3)

    @pytest.mark.parametrize("shape", [HEADS[4], HEADS[8]], ids=str)
    def test_without_a_cache(self, kernels: NativeKernels, shape: Heads) -> None:
        layers = (
            attention(kernels, shape, 20),
            feed_forward(kernels, 20, 40),
            attention(kernels, shape, 20, bias=True, layer=1),
        )
        x, whole = random(1, 130, 20), Batch.of_one(torch.arange(130))
        scattered = batch_of([(130, 130)], SLOTS)
        expected = kernels.forward(x.clone(), layers, scattered, cache_for(shape, SLOTS, 2))
        assert torch.equal(kernels.forward(x.clone(), layers, whole, None), expected)

    def test_no_layers(self, kernels: NativeKernels) -> None:
        x = random(1, 3, 20)
        assert torch.equal(kernels.forward(x.clone(), (), Batch.of_one(torch.arange(3)), None), x)

    def test_large_scores(self, kernels: NativeKernels) -> None:
        """Odds of 0 and 1, and a maximum that comes late."""
        shape = Heads(3, 1, 8, 8, 8)
        layer = attention(kernels, shape, 20)
        cache = cache_for(shape, SLOTS)
        cache.keys.mul_(torch.linspace(0, 2000, SLOTS)[:, None, None])
        check_forward(
            kernels, shape, lambda of: (attention(of, shape, 20),), batch_of(SPANS, SLOTS), cache=cache
        )
        found = kernels.forward(random(1, 1, 20), (layer,), batch_of([(1, 200)], SLOTS), cache)
        assert found.isfinite().all()


def give_theta(layers: Layers) -> None:
    """A correction for each matrix."""
    for layer in layers:
        for number, weight in enumerate(weights_of(layer)):
            theta = correction(number, number + 1, weight.shape)
            weight.correct(Correction(theta.u * 0.2, theta.v * 0.2, theta.half_gamma))


def weights_of(layer: SelfAttention | FeedForward) -> tuple[Weight, ...]:
    if isinstance(layer, SelfAttention):
        return layer.q, layer.k, layer.v, layer.out
    return layer.gate, layer.up, layer.down


def check_forward(
    kernels: Kernels,
    shape: Heads,
    layers: Callable[[Kernels], Layers],
    batch: Batch,
    width: int = 20,
    *,
    cache_layers: int = 1,
    cache: KVCache | None = None,
    within: float = 2e-4,
) -> None:
    """Rows and the cache are those of the reference; the slots of others stay as they are."""
    before = cache or cache_for(shape, SLOTS, cache_layers)
    found_cache, expected_cache = copy(before), copy(before)
    x = random(1, len(batch.slots), width)
    found = kernels.forward(x.clone(), layers(kernels), batch, found_cache)
    expected = REFERENCE.forward(x.clone(), layers(REFERENCE), batch, expected_cache)
    assert distance(found - x, expected - x) < within
    others = torch.ones(SLOTS, dtype=torch.bool)
    others[batch.slots] = False
    for one, other, old in (
        (found_cache.keys, expected_cache.keys, before.keys),
        (found_cache.values, expected_cache.values, before.values),
    ):
        torch.testing.assert_close(one, other, atol=within * float(other.abs().max()), rtol=2e-3)
        assert torch.equal(one[:, others], old[:, others])


INVARIANT_TYPES = ["F32", "Q4_1", "Q8_0", "Q6_K"]
WIDE = Heads(4, 2, 64, 64, 64)


def block(kernels: Kernels, name: str) -> Layers:
    """A block of 256 columns with theta."""
    layers = attention(kernels, WIDE, 256, type=name, bias=True), feed_forward(kernels, 256, 256, type=name)
    give_theta(layers)
    return layers


@pytest.mark.parametrize("name", INVARIANT_TYPES)
class TestCompany:
    """A row's results are the same to the bit whatever it is computed with."""

    def test_products(self, kernels: NativeKernels, name: str) -> None:
        weight, _ = matrix(kernels, name, (21, 256), bias=random(4, 21))
        weight.correct(correction(2, 3, (21, 256)))
        x, norm = random(1, 140, 256), Norm(random(2, 256), 1e-5)
        for by in (None, norm):
            together = kernels.linear(x, weight, by)
            for size in (1, 2, 3, 63, 64, 65, 130):
                parts = [kernels.linear(some, weight, by) for some in torch.split(x, size)]
                assert torch.equal(torch.cat(parts), together), size

    def test_prompts_in_chunks(self, kernels: NativeKernels, name: str) -> None:
        layers, batch, x = block(kernels, name), batch_of([(140, 140)], SLOTS), random(1, 140, 256)
        whole_cache = cache_for(WIDE, SLOTS)
        whole = kernels.forward(x.clone(), layers, batch, whole_cache)
        for chunks in ([64, 76], [1, 63, 1, 75], [139, 1], [37] * 3 + [29], [1] * 9 + [131]):
            cache, found, start = cache_for(WIDE, SLOTS), [], 0
            for rows in chunks:
                part = part_of(batch, 0, range(start, start + rows))
                found.append(kernels.forward(x[start : start + rows].clone(), layers, part, cache))
                start += rows
            assert torch.equal(torch.cat(found), whole), chunks
            assert torch.equal(cache.keys, whole_cache.keys)
            assert torch.equal(cache.values, whole_cache.values)

    def test_sequences_together(self, kernels: NativeKernels, name: str) -> None:
        layers, batch = block(kernels, name), batch_of(SPANS, SLOTS)
        x = random(1, len(batch.slots), 256)
        together = kernels.forward(x.clone(), layers, batch, cache_for(WIDE, SLOTS))
        for number, span in enumerate(batch.spans):
            alone = part_of(batch, number, range(span.stop - span.start))
            rows = x[span.start : span.stop].clone()
            found = kernels.forward(rows, layers, alone, cache_for(WIDE, SLOTS))
            assert torch.equal(found, together[span.start : span.stop]), SPANS[number]

    def test_where_the_context_lies(self, kernels: NativeKernels, name: str) -> None:
        layers, x = block(kernels, name), random(1, 70, 256)
        one, other = (
            kernels.forward(x.clone(), layers, batch_of([(70, 70)], SLOTS, seed), cache_for(WIDE, SLOTS))
            for seed in (0, 1)
        )
        assert torch.equal(one, other)


OUTLIVING = """
import gc, sys, time
import numpy as np
from engine.gguf import GGMLType
from engine.kernels.native import NativeKernels

def pack(kernels, rows, columns):
    data = np.ones((rows, columns), np.float32).view(np.uint8)
    return kernels.pack(data, GGMLType.F32, (rows, columns))

weight = pack(NativeKernels(sys.argv[1], 1), 16384, 2048)
gc.collect()
time.sleep(0.3)

class Cycle:
    def __init__(self):
        self.itself = self
        self.kernels = NativeKernels(sys.argv[1], 2)
        self.weights = [pack(self.kernels, 64, 128) for _ in range(3)]

Cycle()
gc.collect()
print("alive")
"""


class TestLifetime:
    """What may go before what."""

    @pytest.mark.parametrize("name", NAMES)
    def test_a_matrix_outlives_its_kernels(self, name: str) -> None:
        """In a process of its own: a fault would be a crash."""
        done = subprocess.run(
            [sys.executable, "-c", OUTLIVING, name], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


class TestThreads:
    """Threads change nothing but the time."""

    @pytest.mark.parametrize("name", NAMES)
    def test_any_number_gives_the_same_bits(self, name: str) -> None:
        batch = batch_of(SPANS, SLOTS)
        x = random(1, len(batch.slots), 256)
        results = []
        for threads in (1, 2, 3):
            kernels = NativeKernels(name, threads)
            cache = cache_for(WIDE, SLOTS)
            found = kernels.forward(x.clone(), block(kernels, "Q4_1"), batch, cache)
            results.append((found, cache.keys, cache.values))
        for others in results[1:]:
            assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))

    def test_two_callers_at_once(self, kernels: NativeKernels) -> None:
        """Each gets its own results, also where the calls take turns at every chance."""
        shape = Heads(3, 1, 8, 8, 8)
        callers: list[Layers] = [
            (attention(kernels, shape, 20), feed_forward(kernels, 20, 40)),
            (feed_forward(kernels, 24, 8), attention(kernels, shape, 24, bias=True)),
        ]
        batch = Batch.of_one(torch.arange(5))
        inputs = [random(1, 5, 20), random(2, 5, 24)]
        expected = [
            kernels.forward(x.clone(), layers, batch, None) for x, layers in zip(inputs, callers, strict=True)
        ]

        def call(number: int) -> int:
            return sum(
                not torch.equal(
                    kernels.forward(inputs[number].clone(), callers[number], batch, None), expected[number]
                )
                for _ in range(500)
            )

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(2) as pool:
                assert list(pool.map(call, range(2))) == [0, 0]
        finally:
            sys.setswitchinterval(interval)

    @pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
    @pytest.mark.parametrize("name", NAMES)
    def test_none_outlive_their_kernels(self, name: str) -> None:
        gc.collect()
        before = len(os.listdir("/proc/self/task"))
        for _ in range(50):
            kernels = NativeKernels(name, 3)
            weight, _ = matrix(kernels, "Q4_1", (40, 64))
            kernels.linear(random(1, 9, 64), weight)
        assert len(os.listdir("/proc/self/task")) <= before + 2 + 1  # of the last one, a packer perhaps
        del kernels, weight
        gc.collect()
        assert len(os.listdir("/proc/self/task")) == before


class TestNotFinite:
    """Values that are no numbers."""

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", TYPES)
    def test_a_matrix_with_one_is_damaged(self, kernels: NativeKernels, name: str, value: float) -> None:
        kind, shape = GGMLType[name], (21, columns_of(name, 3))
        data = random_tensor(np.random.default_rng(1), name, shape).data.view(np.uint8).copy()
        blocks = data.reshape(-1, kind.type_size)
        # The last block of a row in a whole panel, and that of the last row, in one that is not.
        for row in (7, 20):
            damaged = blocks.copy()
            for at in SCALES.get(name, (0,)):
                place = damaged[(row + 1) * (shape[1] // kind.block_size) - 1, at : at + 2]
                word = {"F32": np.float32, "BF16": np.float32}.get(name, np.float16)
                place[:] = np.array([value], word).view(np.uint8)[-2:]
                weight = kernels.pack(damaged, kind, shape)
                kernels.settle()
                assert weight.damaged
                damaged = blocks.copy()
        sound = kernels.pack(data, kind, shape)
        kernels.settle()
        assert not sound.damaged

    def test_other_types_are_looked_at_dequantised(self, kernels: NativeKernels) -> None:
        blocks = random_tensor(np.random.default_rng(1), "TQ2_0", (3, 512)).data.view(np.uint8).copy()
        blocks.reshape(-1, 66)[3, 64:] = np.array([np.nan], np.float16).view(np.uint8)
        weight = kernels.pack(blocks, GGMLType.TQ2_0, (3, 512))
        kernels.settle()
        assert weight.damaged

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("rows", [1, 70])
    @pytest.mark.parametrize("name", TYPES)
    def test_a_row_with_one_has_no_finite_product(
        self, kernels: NativeKernels, name: str, rows: int, value: float
    ) -> None:
        weight, _ = matrix(kernels, name, (21, columns_of(name, 3)))
        x = random(1, rows, weight.shape[1])
        sound = kernels.linear(x, weight)
        bad = rows // 2
        x[bad, 5] = value
        found = kernels.linear(x, weight)
        assert not found[bad].isfinite().any()
        others = [row for row in range(rows) if row != bad]
        assert torch.equal(found[others], sound[others])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_layers_keep_them_in_their_sequence(self, kernels: NativeKernels, value: float) -> None:
        shape = Heads(4, 2, 8, 8, 8)
        layers = attention(kernels, shape, 24), feed_forward(kernels, 24, 40)
        batch = batch_of([(3, 9), (2, 2), (1, 30)], 64)
        x = random(1, 6, 24)
        sound = kernels.forward(x.clone(), layers, batch, cache_for(shape, 64))
        x[3, 2] = value
        found = kernels.forward(x.clone(), layers, batch, cache_for(shape, 64))
        assert not found[3].isfinite().any()
        assert not found[4].isfinite().any(), "it sees the row in front of it"
        assert torch.equal(found[[0, 1, 2, 5]], sound[[0, 1, 2, 5]])


SCALES = {
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "F32": (2,),
}
"""Where blocks have float16 scales and mins, if not at the beginning alone; the upper half of a float."""
