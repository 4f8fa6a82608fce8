"""Attention over a paged cache, and the way into the cache, against float64: per format and size of heads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.gpu.check import Check, largest
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.stopwatch import stopwatch
from engine.batch import Pages
from engine.kernels import Rotation
from engine.kernels.cuda.attention import Scoring, decode_attention
from engine.kernels.cuda.prefill import prefill_attention
from engine.kernels.cuda.rope import rope_store
from engine.kv_cache import CacheFormat, CacheLayer, KVCache, hadamard

MIXED = 4e-3
"""Largest error of means of values around 1: odds and what is read of the cache are of half precision."""
TURNED = 2**-10
"""Largest error of turned heads, per unit of their largest element: one rounding to half precision."""
STEP = 1.1
"""Largest error of heads in a quantised cache, in scales, against the format's own rounding: what lies on the
border of two integers may go either way."""
_PAGE = 16
_KV_HEADS = 2
_GROUP = 4
"""Query heads of a KV head."""
_DECODED = ((1, 300), (3, 65), (1, 0))
"""(rows, tokens of the context with them) of each sequence: a draft and a row that fills up among them."""
_READ = ((70, 100), (17, 17))
_POSITIONS = 64


@dataclass(frozen=True, slots=True)
class Contexts:
    """A layer with the contexts of some sequences on scattered pages; what is nobody's is NaN."""

    layer: CacheLayer
    pages: Pages
    sequences: Sequence[tuple[int, int]]
    slots: Sequence[torch.Tensor]
    """Of each sequence's tokens, int64 [length]."""


def attention_checks(settings: Settings, format: CacheFormat) -> Iterator[Check]:
    """Of one format, for all sizes of heads: few rows, many rows, and rope with the way into the cache."""
    watch = stopwatch(torch.device(settings.device))
    for dim in settings.sizes.check_heads:
        generator = torch.Generator(watch.device).manual_seed(dim)
        for name, sequences in (("decode", _DECODED), ("prefill", _READ)):
            contexts = _contexts(sequences, format, dim, generator)
            error = partial(_attention_error, name, contexts, generator, watch.processors)
            yield Check(f"{name} attention {format.name}, heads of {dim}", MIXED, error)
        cache = _cache(format, 8, dim, generator.device)
        error = partial(_rope_error, cache.layer(0), generator)
        yield Check(f"rope into {format.name}, heads of {dim}", STEP if format.quantised else TURNED, error)


def _cache(format: CacheFormat, slots: int, dim: int, device: torch.device) -> KVCache:
    return KVCache.allocate(
        layers=1,
        slots=slots,
        kv_heads=_KV_HEADS,
        key_dim=dim,
        value_dim=dim,
        dtype=torch.float16,
        device=device,
        format=format,
    )


def _contexts(
    sequences: Sequence[tuple[int, int]], format: CacheFormat, dim: int, generator: torch.Generator
) -> Contexts:
    device = generator.device
    counts = [-(-length // _PAGE) for _, length in sequences]
    order = torch.randperm(sum(counts) + 1, generator=generator, device=device)
    tables = torch.zeros(len(sequences), max(counts), dtype=torch.int32, device=device)
    slots, used = [], 0
    for number, ((_, length), count) in enumerate(zip(sequences, counts, strict=True)):
        own = order[used : used + count]
        tables[number, :count] = own.int()
        token = torch.arange(length, device=device)
        slots.append(own[token // _PAGE] * _PAGE + token % _PAGE)
        used += count
    layer = _cache(format, len(order) * _PAGE, dim, device).layer(0)
    taken = torch.cat(slots)
    free = torch.ones(len(layer.keys), dtype=torch.bool, device=device).index_fill_(0, taken, False)
    for rows, scales in ((layer.keys, layer.key_scales), (layer.values, layer.value_scales)):
        x = torch.randn(len(rows), _KV_HEADS, dim, generator=generator, device=device)
        if scales is None:
            rows.copy_(x)
            rows[free] = torch.nan
        else:
            integers, steps = format.quantise(hadamard(x))
            rows.copy_(integers)
            scales.copy_(steps)
            scales[free] = torch.nan
    starts = torch.tensor([0, *(rows for rows, _ in sequences)], device=device).cumsum(0).int()
    lengths = torch.tensor([length for _, length in sequences], dtype=torch.int32, device=device)
    pages = Pages(tables, lengths, starts, _PAGE, max(rows for rows, _ in sequences))
    return Contexts(layer, pages, sequences, slots)


def _attention_error(name: str, it: Contexts, generator: torch.Generator, processors: int) -> float:
    layer = it.layer
    rows = sum(rows for rows, _ in it.sequences)
    heads, dim = _GROUP * _KV_HEADS, layer.key_dim
    queries = torch.randn(rows, heads, dim, generator=generator, device=generator.device)
    given = (hadamard(queries) if layer.format.quantised else queries).half()
    scoring = Scoring(dim**-0.5)
    if name == "decode":
        found = decode_attention(given, layer, it.pages, scoring, processors)
    else:
        found = prefill_attention(given, layer, it.pages, scoring)
    return largest(found, _attention(queries, it, scoring.scale).flatten(1))


def _attention(queries: torch.Tensor, it: Contexts, scale: float) -> torch.Tensor:
    """Causal attention in float64: [T, heads, dim]."""
    layer = it.layer
    keys = _stored(layer.keys, layer.key_scales, layer.format)
    values = _stored(layer.values, layer.value_scales, layer.format)
    out = torch.zeros(queries.shape, dtype=torch.float64, device=queries.device)
    first = 0
    for (rows, length), slots in zip(it.sequences, it.slots, strict=True):
        if length:
            k, v = (part[slots].repeat_interleave(_GROUP, 1) for part in (keys, values))
            scores = torch.einsum("thd,chd->htc", queries[first : first + rows].double(), k) * scale
            place = torch.arange(length, device=queries.device)
            unseen = place[None, :] > place[length - rows :, None]
            odds = scores.masked_fill(unseen, -torch.inf).softmax(-1)
            out[first : first + rows] = torch.einsum("htc,chd->thd", odds, v)
        first += rows
    return out


def _stored(rows: torch.Tensor, scales: torch.Tensor | None, format: CacheFormat) -> torch.Tensor:
    """What the rows of a cache stand for, float64."""
    if scales is None:
        return rows.double()
    return hadamard(format.dequantise(rows, scales).double())


def _rope_error(layer: CacheLayer, generator: torch.Generator) -> float:
    """The largest error of queries, and of what a row leaves in the cache, in the unit of the tolerance.

    Rows that have no slot must leave nothing there: then, and where a slot of nobody is written, NaN.
    """
    device, dim = generator.device, layer.key_dim
    for tensor in (layer.keys, layer.values, layer.key_scales, layer.value_scales):
        if tensor is not None:
            tensor.zero_()
    angles = torch.randn(_POSITIONS, dim // 2, generator=generator, device=device)
    rotation = Rotation(angles.cos(), angles.sin())
    q, k, v = (
        torch.randn(3, heads, dim, generator=generator, device=device)
        for heads in (_GROUP * _KV_HEADS, _KV_HEADS, _KV_HEADS)
    )
    positions, slots = (torch.tensor(each, device=device) for each in ([7, 39, 0], [4, -1, 1]))
    found = rope_store(q.flatten(1), k.flatten(1), v.flatten(1), positions, slots, rotation, layer)
    turns = torch.complex(rotation.cos[positions].double(), rotation.sin[positions].double())
    queries, keys = (_turned(each, turns) for each in (q, k))
    queries = hadamard(queries) if layer.format.quantised else queries
    others = [slot for slot in range(len(layer.keys)) if slot not in (4, 1)]
    if layer.keys[others].any() or layer.values[others].any():
        return float("nan")
    errors = [_half_error(found, queries)]
    kept = torch.tensor([0, 2], device=device)
    for x, rows, scales in (
        (keys, layer.keys, layer.key_scales),
        (v.double(), layer.values, layer.value_scales),
    ):
        written = rows[slots[kept]]
        if scales is None:
            errors.append(_half_error(written, x[kept]))
        else:
            errors.append(_step_error(written, scales[slots[kept]], x[kept], layer.format))
    return max(errors)


def _turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Neighbouring pairs of heads [T, heads, dim] multiplied by complex128 [T, pairs]: float64."""
    pairs = torch.view_as_complex(torch.unflatten(x.double(), -1, (-1, 2)))
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2)


def _half_error(found: torch.Tensor, should: torch.Tensor) -> float:
    return largest(found, should) / should.abs().max().item()


def _step_error(integers: torch.Tensor, scales: torch.Tensor, x: torch.Tensor, format: CacheFormat) -> float:
    """The largest difference to what the format makes of x float64, in the largest of its scales."""
    known, steps = format.quantise(hadamard(x).float())
    found, should = (format.dequantise(*each).double() for each in ((integers, scales), (known, steps)))
    return largest(found, should) / steps.double().abs().max().item()
