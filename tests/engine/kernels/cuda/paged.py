"""Paged caches with contexts in them, and what attention over them should give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import Pages
from engine.kernels.cuda.attention import Scoring
from engine.kv_cache import CacheFormat, CacheLayer, KVCache, hadamard

Array = npt.NDArray[np.float64]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def empty_cache(
    format: CacheFormat, slots: int, kv_heads: int, key_dim: int, value_dim: int, device: torch.device
) -> KVCache:
    """Of two layers, so that what lies in front of the second may be looked at."""
    return KVCache.allocate(
        layers=2,
        slots=slots,
        kv_heads=kv_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        dtype=torch.float16,
        device=device,
        format=format,
    )


def read(rows: torch.Tensor, scales: torch.Tensor | None, format: CacheFormat) -> Array:
    """What stored rows stand for."""
    if scales is None:
        return rows.cpu().double().numpy()
    return hadamard(format.dequantise(rows.cpu(), scales.cpu()).double()).numpy()


def write(x: torch.Tensor, rows: torch.Tensor, scales: torch.Tensor | None, format: CacheFormat) -> None:
    if scales is None:
        rows.copy_(x)
    else:
        for stored, made in zip((rows, scales), format.quantise(hadamard(x)), strict=True):
            stored.copy_(made)


@dataclass(frozen=True)
class Paged:
    """A layer in which `(rows, length)` of each sequence lie on scattered pages; the other slots hold NaN."""

    layer: CacheLayer
    pages: Pages
    sequences: tuple[tuple[int, int], ...]
    slots: tuple[torch.Tensor, ...]
    """Of each sequence's tokens, int64 [length]."""

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.sequences)


def paged(
    sequences: Sequence[tuple[int, int]],
    *,
    format: CacheFormat,
    kv_heads: int,
    key_dim: int,
    value_dim: int,
    page: int,
    device: torch.device,
    seed: int = 0,
) -> Paged:
    needed = [-(-length // page) for _, length in sequences]
    order = torch.randperm(sum(needed) + 2, generator=torch.Generator().manual_seed(seed))
    tables = torch.full((len(sequences), max(needed, default=0) + 1), 2**30, dtype=torch.int32)
    slots, used = [], 0
    for number, count in enumerate(needed):
        tables[number, :count] = order[used : used + count]
        place = torch.arange(sequences[number][1])
        slots.append(order[used + place // page] * page + place % page)
        used += count
    layer = empty_cache(format, (sum(needed) + 2) * page, kv_heads, key_dim, value_dim, device).layer(1)
    own = torch.cat(slots)
    for at, (rows, scales) in enumerate(((layer.keys, layer.key_scales), (layer.values, layer.value_scales))):
        x = random(seed + 1 + at, len(rows), kv_heads, (key_dim, value_dim)[at])
        write(x, rows, scales, format)
        strange = torch.ones(len(rows), dtype=torch.bool).index_fill_(0, own, False)
        (rows if scales is None else scales)[strange] = torch.nan
    starts = torch.tensor([0, *(rows for rows, _ in sequences)]).cumsum(0)
    lengths = torch.tensor([length for _, length in sequences], dtype=torch.int32)
    most_rows = max(rows for rows, _ in sequences)
    pages = Pages(tables.to(device), lengths.to(device), starts.int().to(device), page, most_rows)
    return Paged(layer, pages, tuple(sequences), tuple(slots))


def oracle(queries: torch.Tensor, it: Paged, scoring: Scoring) -> Array:
    """Attention in double precision, [T, heads * value_dim], of queries that are not rotated."""
    layer = it.layer
    keys = read(layer.keys, layer.key_scales, layer.format)
    values = read(layer.values, layer.value_scales, layer.format)
    q = queries.cpu().double().numpy()
    group = q.shape[1] // layer.kv_heads
    out = np.zeros((q.shape[0], q.shape[1], values.shape[-1]))
    row = 0
    for (rows, length), slots in zip(it.sequences, it.slots, strict=True):
        for position in range(length - rows, length):
            first = 0 if scoring.window is None else max(0, position - scoring.window + 1)
            seen = slots[first : position + 1].numpy()
            for head in range(q.shape[1] if len(seen) else 0):
                scores = keys[seen, head // group] @ q[row, head] * scoring.scale
                if scoring.softcap is not None:
                    scores = scoring.softcap * np.tanh(scores / scoring.softcap)
                odds = np.exp(scores - scores.max())
                out[row, head] = odds / odds.sum() @ values[seen, head // group]
            row += 1
    return out.reshape(len(q), -1)


def as_rope_gives(queries: torch.Tensor, format: CacheFormat) -> torch.Tensor:
    """Queries [T, heads, dim] as kernels of attention take them."""
    return (hadamard(queries) if format.quantised else queries).half()
