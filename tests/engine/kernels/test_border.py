"""The border to the compiled library: operands that do not fit each other are refused before any use."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engine.batch import Batch, Span
from engine.gguf import GGMLType
from engine.kernels import Correction, FeedForward, Norm, Rotation, SelfAttention
from engine.kernels.native import NativeKernels
from engine.kv_cache import KVCache
from engine.native import native_kernels
from engine.native.strings import find_merges, join_strings
from tests.engine.kernels.operands import (
    Heads,
    attention,
    batch_of,
    cache_for,
    feed_forward,
    plain,
    random,
)

NAMES: Any = native_kernels()[:1] or (
    pytest.param("none", marks=pytest.mark.skip("the native library is not built")),
)
WIDTH, ROWS = 24, 3
HEADS = Heads(4, 2, 8, 6, 8)
SLOTS = 40


@pytest.fixture(scope="module", params=NAMES)
def kernels(request: pytest.FixtureRequest) -> NativeKernels:
    return NativeKernels(request.param, 2)


@pytest.fixture
def layer(kernels: NativeKernels) -> SelfAttention:
    return attention(kernels, HEADS, WIDTH)


@pytest.fixture
def second(kernels: NativeKernels) -> FeedForward:
    return feed_forward(kernels, WIDTH, 40)


class TestMatrix:
    """What is packed, and products with it."""

    @pytest.mark.parametrize("rows", [1, 7, 9, 40_000])
    def test_a_bias_of_another_length(self, kernels: NativeKernels, rows: int) -> None:
        with pytest.raises(ValueError, match="a bias with more or fewer values than its matrix has rows"):
            plain(kernels, random(1, 8, WIDTH), random(2, rows))

    @pytest.mark.parametrize("size", [0, 1, 767, 769])
    def test_too_few_or_too_many_bytes(self, kernels: NativeKernels, size: int) -> None:
        with pytest.raises(ValueError, match="a matrix with too few or too many bytes"):
            kernels.pack(np.zeros(size, np.uint8), GGMLType.F32, (8, 24))

    @pytest.mark.parametrize("shape", [(0, 24), (8, 0), (-8, 24), (2**31, 1), (8, 2**32 + 24)])
    def test_an_impossible_shape(self, kernels: NativeKernels, shape: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="a matrix of an impossible shape"):
            kernels.pack(np.zeros(8 * 24 * 4, np.uint8), GGMLType.F32, shape)

    def test_a_width_that_is_not_whole_blocks(self, kernels: NativeKernels) -> None:
        with pytest.raises(ValueError, match="cannot be packed"):
            kernels.pack(np.zeros(18, np.uint8), GGMLType.Q4_0, (1, 33))

    def test_an_input_of_another_width(self, kernels: NativeKernels) -> None:
        weight = plain(kernels, random(1, 8, WIDTH))
        with pytest.raises(ValueError, match="the input of a product has another width"):
            kernels.linear(random(2, ROWS, WIDTH - 1), weight)

    def test_a_norm_of_another_width(self, kernels: NativeKernels) -> None:
        weight = plain(kernels, random(1, 8, WIDTH))
        with pytest.raises(ValueError, match="a norm has another width than its matrix"):
            kernels.linear(random(2, ROWS, WIDTH), weight, Norm(torch.ones(1), 1e-5))

    @pytest.mark.parametrize("row", [-1, 8, 2**40, -(2**63)])
    def test_a_row_that_is_not_there(self, kernels: NativeKernels, row: int) -> None:
        weight = plain(kernels, random(1, 8, WIDTH))
        with pytest.raises(ValueError, match="a row that the matrix does not have"):
            kernels.embed(torch.tensor([0, row, 7]), weight)

    @pytest.mark.parametrize(
        "x", [random(2, ROWS, WIDTH).double(), torch.ones(ROWS, WIDTH, dtype=torch.int32)]
    )
    def test_an_input_of_another_type(self, kernels: NativeKernels, x: torch.Tensor) -> None:
        with pytest.raises(ValueError, match=r"not contiguous torch\.float32"):
            kernels.linear(x, plain(kernels, random(1, 8, WIDTH)))


class TestTheta:
    """Theta's factors."""

    @pytest.mark.parametrize(
        ("u", "v"), [((2, 7), (2, 24)), ((2, 8), (2, 23)), ((2, 8), (3, 24)), ((2, 1), (2, 1))]
    )
    def test_factors_of_another_shape(
        self, kernels: NativeKernels, u: tuple[int, int], v: tuple[int, int]
    ) -> None:
        weight = plain(kernels, random(1, 8, WIDTH))
        with pytest.raises(ValueError, match="theta does not fit its matrix"):
            weight.correct(Correction(torch.ones(u), torch.ones(v), torch.tensor(0.5)))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("factor", [0, 1])
    def test_factors_that_are_not_finite(self, kernels: NativeKernels, factor: int, value: float) -> None:
        weight = plain(kernels, random(1, 8, WIDTH))
        factors = torch.ones(2, 8), torch.ones(2, WIDTH)
        factors[factor][1, 3] = value
        with pytest.raises(ValueError, match="theta holds values that are not finite"):
            weight.correct(Correction(*factors, torch.tensor(0.5)))

    def test_factors_that_are_hardly_more_than_nothing(self, kernels: NativeKernels) -> None:
        weight = plain(kernels, random(1, 8, WIDTH))
        x = random(2, ROWS, WIDTH)
        before = kernels.linear(x, weight)
        weight.correct(Correction(torch.full((2, 8), 1e-45), torch.ones(2, WIDTH), torch.tensor(0.5)))
        assert torch.equal(kernels.linear(x, weight), before)


ATTENTIONS: dict[str, tuple[Callable[[SelfAttention, NativeKernels], SelfAttention], str]] = {
    "norm": (
        lambda layer, _: replace(layer, norm=Norm(torch.ones(WIDTH - 1), 1e-5)),
        "the norm of an attention",
    ),
    "q": (lambda layer, k: replace(layer, q=plain(k, random(1, 32, WIDTH + 8))), "have another width"),
    "k": (lambda layer, k: replace(layer, k=plain(k, random(1, 16, WIDTH - 8))), "have another width"),
    "out": (lambda layer, k: replace(layer, out=plain(k, random(1, WIDTH - 8, 24))), "have another width"),
    "out's columns": (
        lambda layer, k: replace(layer, out=plain(k, random(1, WIDTH, 32))),
        "do not fit each other",
    ),
    "values": (lambda layer, k: replace(layer, v=plain(k, random(1, 13, WIDTH))), "do not fit each other"),
    "heads": (lambda layer, k: replace(layer, q=plain(k, random(1, 24, WIDTH))), "do not fit each other"),
    "part of a head": (
        lambda layer, k: replace(layer, q=plain(k, random(1, 31, WIDTH))),
        "heads of an attention have",
    ),
    "value": (lambda layer, _: replace(layer, value_dim=2**40), "do not fit each other"),
    "turned": (
        lambda layer, _: replace(layer, rotation=Rotation(torch.ones(256, 5), torch.ones(256, 5))),
        "the rotation of an attention has another size",
    ),
    "sines": (
        lambda layer, _: replace(layer, rotation=Rotation(torch.ones(256, 4), torch.ones(255, 4))),
        "more cosines than sines",
    ),
    "positions": (
        lambda layer, _: replace(layer, rotation=Rotation(torch.ones(2, 4), torch.ones(2, 4))),
        "a position beyond the rotation's table",
    ),
    "layer": (lambda layer, _: replace(layer, cache_layer=1), "the cache lacks the layer"),
    "negative layer": (lambda layer, _: replace(layer, cache_layer=-1), "the cache lacks the layer"),
}

BATCHES: dict[str, tuple[Callable[[Batch], Batch], str]] = {
    "position": (lambda b: replace(b, positions=torch.tensor([0, 1, 256])), "a position beyond"),
    "negative position": (lambda b: replace(b, positions=torch.tensor([0, 1, -1])), "a position beyond"),
    "positions": (lambda b: replace(b, positions=b.positions[:2]), "as many positions as rows"),
    "positions of 32 bits": (lambda b: replace(b, positions=b.positions.int()), "not contiguous torch.int64"),
    "slot": (lambda b: replace(b, slots=torch.tensor([0, 1, SLOTS])), "a slot that the cache does not have"),
    "no slot": (lambda b: replace(b, slots=torch.tensor([0, 1, -1])), "a slot that the cache does not have"),
    "context": (
        lambda b: replace(b, spans=(Span(0, ROWS, torch.tensor([0, 1, 2, SLOTS])),)),
        "a context in a slot that the cache does not have",
    ),
    "short context": (
        lambda b: replace(b, spans=(Span(0, ROWS, torch.arange(ROWS - 1)),)),
        "the context of a span lacks its own rows",
    ),
    "span": (lambda b: replace(b, spans=(Span(0, ROWS + 1, torch.arange(9)),)), "do not lie end to end"),
    "negative span": (lambda b: replace(b, spans=(Span(0, -1, torch.arange(9)),)), "do not lie end to end"),
    "gap": (
        lambda b: replace(b, spans=(Span(0, 1, torch.arange(9)), Span(2, ROWS, torch.arange(9)))),
        "do not lie end to end",
    ),
    "rows without a span": (lambda b: replace(b, spans=(Span(0, 2, torch.arange(9)),)), "rows in no span"),
    "rows": (lambda b: replace(b, slots=torch.arange(4), positions=torch.arange(4)), "in no span"),
}

CACHES: dict[str, tuple[Callable[[], KVCache], str]] = {
    "heads": (lambda: cache_for(Heads(4, 1, 8, 6, 8), SLOTS), "made for other heads"),
    "keys": (lambda: cache_for(Heads(4, 2, 4, 6, 4), SLOTS), "made for other heads"),
    "values": (lambda: cache_for(Heads(4, 2, 8, 8, 8), SLOTS), "made for other heads"),
    "slots": (lambda: cache_for(HEADS, 2), "a slot that the cache does not have"),
    "fewer values": (
        lambda: KVCache(cache_for(HEADS, SLOTS).keys, cache_for(HEADS, 2).values),
        "more keys than values",
    ),
    "floats": (
        lambda: KVCache(cache_for(HEADS, SLOTS).keys.float(), cache_for(HEADS, SLOTS).values.float()),
        "not contiguous torch.float16",
    ),
    "turned round": (
        lambda: KVCache(
            random(1, 1, 2, SLOTS, 8).half().transpose(1, 2), random(1, 1, 2, SLOTS, 6).half().transpose(1, 2)
        ),
        "not contiguous torch.float16",
    ),
}


class TestForward:
    """Layers, batches and caches."""

    def test_what_fits_is_not_refused(
        self, kernels: NativeKernels, layer: SelfAttention, second: FeedForward
    ) -> None:
        batch = batch_of([(ROWS, 7)], SLOTS)
        y = kernels.forward(random(1, ROWS, WIDTH), (layer, second), batch, cache_for(HEADS, SLOTS))
        assert y.isfinite().all()

    @pytest.mark.parametrize("name", ATTENTIONS)
    def test_attention(self, kernels: NativeKernels, layer: SelfAttention, name: str) -> None:
        change, reason = ATTENTIONS[name]
        batch = batch_of([(ROWS, 7)], SLOTS)
        with pytest.raises(ValueError, match=reason):
            kernels.forward(random(1, ROWS, WIDTH), (change(layer, kernels),), batch, cache_for(HEADS, SLOTS))

    @pytest.mark.parametrize("name", BATCHES)
    def test_batch(self, kernels: NativeKernels, layer: SelfAttention, name: str) -> None:
        change, reason = BATCHES[name]
        batch = change(batch_of([(ROWS, 7)], SLOTS))
        with pytest.raises(ValueError, match=reason):
            kernels.forward(random(1, ROWS, WIDTH), (layer,), batch, cache_for(HEADS, SLOTS))

    @pytest.mark.parametrize("name", CACHES)
    def test_cache(self, kernels: NativeKernels, layer: SelfAttention, name: str) -> None:
        make, reason = CACHES[name]
        batch = batch_of([(ROWS, 7)], SLOTS)
        with pytest.raises(ValueError, match=reason):
            kernels.forward(random(1, ROWS, WIDTH), (layer,), batch, make())

    @pytest.mark.parametrize(
        ("part", "shape", "reason"),
        [
            ("gate", (40, WIDTH - 8), "have another width"),
            ("up", (40, WIDTH + 8), "have another width"),
            ("down", (WIDTH - 8, 40), "have another width"),
            ("up", (32, WIDTH), "do not fit each other"),
            ("down", (WIDTH, 48), "do not fit each other"),
        ],
    )
    def test_feed_forward(
        self, kernels: NativeKernels, second: FeedForward, part: str, shape: tuple[int, int], reason: str
    ) -> None:
        change: dict[str, Any] = {part: plain(kernels, random(1, *shape))}
        changed = replace(second, **change)
        batch = batch_of([(ROWS, ROWS)], SLOTS)
        with pytest.raises(ValueError, match=reason):
            kernels.forward(random(1, ROWS, WIDTH), (changed,), batch, None)

    def test_the_norm_of_a_feed_forward(self, kernels: NativeKernels, second: FeedForward) -> None:
        changed = replace(second, norm=Norm(torch.ones(1), 1e-5))
        with pytest.raises(ValueError, match="the norm of a feed-forward has another width"):
            kernels.forward(random(1, ROWS, WIDTH), (changed,), batch_of([(ROWS, ROWS)], SLOTS), None)

    @pytest.mark.parametrize(
        "shape", [(ROWS + 1, WIDTH), (ROWS - 1, WIDTH), (ROWS, WIDTH - 1), (ROWS, 2 * WIDTH)]
    )
    def test_an_input_of_another_shape(
        self, kernels: NativeKernels, layer: SelfAttention, shape: tuple[int, int]
    ) -> None:
        batch = batch_of([(ROWS, 7)], SLOTS)
        with pytest.raises(ValueError, match=r"ha(ve|s) another width|not whole rows"):
            kernels.forward(random(1, *shape), (layer,), batch, cache_for(HEADS, SLOTS))

    def test_without_a_cache_any_layer_has_room(self, kernels: NativeKernels, layer: SelfAttention) -> None:
        batch, x = Batch.of_one(torch.zeros(ROWS, dtype=torch.int64)), random(1, ROWS, WIDTH)
        first = kernels.forward(x.clone(), (layer,), batch, None)
        assert torch.equal(kernels.forward(x.clone(), (replace(layer, cache_layer=7),), batch, None), first)

    def test_the_kernels_go_on(self, kernels: NativeKernels, layer: SelfAttention) -> None:
        batch, cache = batch_of([(ROWS, 7)], SLOTS), cache_for(HEADS, SLOTS)
        x = random(1, ROWS, WIDTH)
        expected = kernels.forward(x.clone(), (layer,), batch, cache)
        with pytest.raises(ValueError, match="a slot"):
            kernels.forward(x.clone(), (layer,), replace(batch, slots=batch.slots + SLOTS), cache)
        assert torch.equal(kernels.forward(x.clone(), (layer,), batch, cache), expected)


@pytest.mark.skipif(not native_kernels(), reason="the native library is not built")
@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 6), (2**62, 2**62 + 1), (-(2**63), 0)])
def test_strings_outside_their_text(start: int, end: int) -> None:
    places = np.array([0, start], np.int64), np.array([2, end], np.int64)
    assert join_strings(b"a b c", *places) is None
    assert find_merges((b"a b c", *places), (b"a b", np.array([0]), np.array([3]))) is None
    assert find_merges((b"ab", np.array([0, 1]), np.array([1, 2])), (b"a b c", *places)) is None
