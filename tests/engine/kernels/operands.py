"""What tests give to kernels: packed matrices with their values, layers, batches, caches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from gguf import dequantize

from engine.batch import Batch, Span
from engine.gguf import GGMLType
from engine.kernels import Correction, FeedForward, Kernels, Norm, Rotation, SelfAttention, Weight
from engine.kv_cache import KVCache
from tests.support.gguf_files import random_tensor

Array = npt.NDArray[np.float64]
CPU = torch.device("cpu")


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matrix(
    kernels: Kernels, name: str, shape: tuple[int, int], seed: int = 3, bias: torch.Tensor | None = None
) -> tuple[Weight, Array]:
    """A packed matrix of one type and what the reference package takes it for."""
    tensor = random_tensor(np.random.default_rng(seed), name, shape)
    values = dequantize(tensor.data, tensor.type).reshape(shape).astype(np.float64)
    weight = kernels.pack(tensor.data.view(np.uint8), GGMLType[name], shape, bias)
    kernels.settle()
    return weight, values


def plain(kernels: Kernels, values: torch.Tensor, bias: torch.Tensor | None = None) -> Weight:
    """A matrix of float32."""
    weight = kernels.pack(values.numpy().view(np.uint8), GGMLType.F32, (len(values), values.shape[1]), bias)
    kernels.settle()
    return weight


def zeros(kernels: Kernels, name: str, shape: tuple[int, int]) -> Weight:
    """A matrix of zeros: of any type, bytes of zero."""
    kind = GGMLType[name]
    size = shape[0] * shape[1] // kind.block_size * kind.type_size
    weight = kernels.pack(np.zeros(size, np.uint8), kind, shape)
    kernels.settle()
    return weight


def between_ties(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, Array]:
    """Activations that every way of rounding them to 8 bits rounds alike, and what becomes of them.

    For columns that are a multiple of 32. The scales of the blocks lie far apart.
    """
    rng = np.random.default_rng(seed)
    whole = rng.integers(-126, 127, (rows, columns // 32, 32)).astype(np.float64)
    scale = np.exp(rng.normal(-4, 1, (rows, columns // 32, 1)))
    coarse = is_coarse(scale)
    # In a coarse block whole numbers and 254ths of them remain, elsewhere whole numbers.
    kept = whole + coarse * rng.integers(-100, 101, whole.shape) / 254
    lost = rng.uniform(-0.4, 0.4, whole.shape) / np.where(coarse, 254, 1)
    kept[..., 0], lost[..., 0] = 127 * rng.choice([-1, 1], whole.shape[:2]), 0
    x = ((kept + lost) * scale).astype(np.float32).reshape(rows, columns)
    return torch.from_numpy(x), (kept * scale).reshape(rows, columns)


def is_coarse(scale: Array) -> npt.NDArray[np.bool_]:
    """Which blocks are rounded twice, by their scales [rows, blocks, 1]: those above the row's usual one."""
    coarse: npt.NDArray[np.bool_] = scale > 1.001 * np.sqrt((scale**2).mean(1, keepdims=True))
    return coarse


def distance(found: torch.Tensor, expected: Array | torch.Tensor) -> float:
    """The norm of the error over the norm of what it should be; 0 if both are."""
    should = expected.double().numpy() if isinstance(expected, torch.Tensor) else expected
    assert found.shape == should.shape
    error = np.linalg.norm(found.double().numpy() - should)
    return float(error and error / np.linalg.norm(should))


def correction(seed: int, rank: int, shape: tuple[int, int], half_gamma: float = 0.4) -> Correction:
    """Theta as files have it: each row integers of up to 127, times a scale in u."""
    u, v = (_integers(random(seed + at, rank, shape[at])) for at in (0, 1))
    return Correction(1e-4 * u, v, torch.tensor(float(half_gamma)))


def _integers(rows: torch.Tensor) -> torch.Tensor:
    return (rows * 127 / rows.abs().amax(1, keepdim=True)).round()


@dataclass(frozen=True)
class Heads:
    """The shape of an attention: `rotated` elements of each key turn."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    rotated: int

    def __str__(self) -> str:
        return f"{self.heads}/{self.kv_heads} x {self.key_dim}, {self.value_dim}, turned {self.rotated}"


def rotation(pairs: int, positions: int) -> Rotation:
    angles = torch.arange(positions)[:, None] * 100.0 ** -torch.linspace(0, 1, pairs)
    return Rotation(angles.cos(), angles.sin())


def attention(
    kernels: Kernels, shape: Heads, width: int, *, type: str = "F32", bias: bool = False, layer: int = 0
) -> SelfAttention:
    """A layer of random weights, the same for all kernels."""
    rows = {
        "q": shape.heads * shape.key_dim,
        "k": shape.kv_heads * shape.key_dim,
        "v": shape.kv_heads * shape.value_dim,
    }
    parts = {
        part: matrix(kernels, type, (count, width), count, random(count, count) if bias else None)[0]
        for part, count in rows.items()
    }
    return SelfAttention(
        norm=Norm(1 + 0.1 * random(1, width), 1e-5),
        out=matrix(kernels, type, (width, shape.heads * shape.value_dim), 2)[0],
        rotation=rotation(shape.rotated // 2, 256),
        cache_layer=layer,
        key_dim=shape.key_dim,
        value_dim=shape.value_dim,
        **parts,
    )


def feed_forward(kernels: Kernels, width: int, hidden: int, *, type: str = "F32") -> FeedForward:
    """A layer of random weights, the same for all kernels."""
    return FeedForward(
        norm=Norm(1 + 0.1 * random(5, width), 1e-5),
        gate=matrix(kernels, type, (hidden, width), 6)[0],
        up=matrix(kernels, type, (hidden, width), 7)[0],
        down=matrix(kernels, type, (width, hidden), 8)[0],
    )


def cache_for(shape: Heads, slots: int, layers: int = 1) -> KVCache:
    """A cache in half precision with something in each slot."""
    keys = random(11, layers, slots, shape.kv_heads, shape.key_dim).half()
    return KVCache(keys, random(12, layers, slots, shape.kv_heads, shape.value_dim).half())


def copy(cache: KVCache) -> KVCache:
    return KVCache(cache.keys.clone(), cache.values.clone())


def batch_of(spans: Sequence[tuple[int, int]], slots: int, seed: int = 0) -> Batch:
    """A batch of (rows, context) whose contexts lie in scattered slots, each in its own."""
    order = torch.randperm(slots, generator=torch.Generator().manual_seed(seed))
    built, positions, own = [], [], []
    row = used = 0
    for rows, context in spans:
        context_slots = order[used : used + context]
        assert len(context_slots) == context, "too few slots"
        built.append(Span(row, row + rows, context_slots))
        positions.append(torch.arange(context - rows, context))
        own.append(context_slots[context - rows :])
        row, used = row + rows, used + context
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(none, torch.cat(positions), torch.cat(own), tuple(built), none)


def part_of(batch: Batch, number: int, rows: range) -> Batch:
    """Some rows of one span, counted from its first, as a batch of their own."""
    span = batch.spans[number]
    left = span.stop - span.start - rows.stop
    context = span.context_slots[: len(span.context_slots) - left]
    taken = slice(span.start + rows.start, span.start + rows.stop)
    none = torch.zeros(0, dtype=torch.int64)
    one = Span(0, len(rows), context)
    return Batch(none, batch.positions[taken], batch.slots[taken], (one,), none)
