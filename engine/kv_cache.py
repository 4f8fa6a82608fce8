"""The tensors of the paged KV cache. Which block belongs to whom, `engine.block_manager` knows.

Rows that are quantised are first rotated along the head dimension by a Hadamard matrix: it spreads a channel
with large values over its neighbours, so that 32 elements can share one scale (QuaRot, Ashkboos et al. 2024).
Queries rotated likewise leave all scores as they are; the sum of rotated values is rotated back.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Self

import torch

SCALE_GROUP = 32
"""Elements of a head, side by side, that share one scale; the last group of a head may be smaller."""


class CacheFormat(Enum):
    """How one head's key or value lies in the cache; the numbers are those of `--quantkv`.

    `Q8`: scale * integer, -127 to 127, with scale = largest magnitude / 127. `Q4`: scale * (nibble - 8), with
    scale = the value of largest magnitude / -8; byte i holds element 2 i in its low nibble and 2 i + 1 in its
    high one. Scales are float16, one for each `SCALE_GROUP`; integers are floor(x * (1 / scale) + 0.5) in
    float32, held within their range.
    """

    F16 = 0
    """As floats, of whatever dtype the kernels want: half precision in all of them but the reference."""
    Q8 = 1
    Q4 = 2

    @property
    def quantised(self) -> bool:
        """Whether rows are rotated and rounded, with scales."""
        return self is not CacheFormat.F16

    def row_bytes(self, dim: int, dtype: torch.dtype = torch.float16) -> int:
        """Bytes of one head's key or value of `dim` elements, scales included. `dtype`: that of floats."""
        if self is CacheFormat.F16:
            return dim * dtype.itemsize
        return (dim if self is CacheFormat.Q8 else dim // 2) + 2 * scale_groups(dim)

    def allocate(
        self, *shape: int, dtype: torch.dtype, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Memory for rows [..., dim] and their scales, if the format has any. `dtype`: that of floats.

        Raises `ValueError` for an odd dimension of nibbles.
        """
        *outer, dim = shape
        if self is CacheFormat.F16:
            return torch.empty(shape, dtype=dtype, device=device), None
        if self is CacheFormat.Q4 and dim % 2:
            raise ValueError(f"a head of {dim} elements cannot be stored in pairs of 4 bits")
        scales = torch.empty(*outer, scale_groups(dim), dtype=torch.float16, device=device)
        if self is CacheFormat.Q8:
            return torch.empty(shape, dtype=torch.int8, device=device), scales
        return torch.empty(*outer, dim // 2, dtype=torch.uint8, device=device), scales

    def quantise(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows float32 [..., dim], rotated already, as integers and scales in the shapes of `allocate`."""
        dim = x.shape[-1]
        groups = _groups(x)
        if self is CacheFormat.Q8:
            extreme, least, most, divisor = groups.abs().amax(-1), -127, 127, 127.0
        else:
            low, high = groups.aminmax(dim=-1)
            extreme, least, most, divisor = torch.where(high > -low, high, low), -8, 7, -8.0
        scales = (extreme / divisor).half()
        inverse = torch.where(scales == 0, 0.0, 1 / scales.float())
        integers = (groups * inverse[..., None] + 0.5).floor().clamp(least, most)
        integers = integers.to(torch.int8).flatten(-2)[..., :dim].contiguous()
        return (integers if self is CacheFormat.Q8 else _as_nibbles(integers)), scales

    def dequantise(self, integers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """What `quantise` has rounded, still rotated: float32 [..., dim]."""
        values = (integers if self is CacheFormat.Q8 else _of_nibbles(integers)).float()
        return (_groups(values) * scales.float()[..., None]).flatten(-2)[..., : values.shape[-1]]


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """One layer of a `KVCache`: the same tensors without their first dimension."""

    format: CacheFormat
    keys: torch.Tensor
    values: torch.Tensor
    key_scales: torch.Tensor | None = None
    value_scales: torch.Tensor | None = None

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.keys.shape[1]

    @property
    def key_dim(self) -> int:
        """Elements of a key."""
        return _elements(self.keys, self.format)

    @property
    def value_dim(self) -> int:
        """Elements of a value."""
        return _elements(self.values, self.format)


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers.

    `keys`, `values`: [layers, slots, kv_heads, head_dim], floats or, by `format`, integers with their scales
    float16 [layers, slots, kv_heads, groups]; nibbles lie two in a byte. slot = block * block_size + offset.
    The two head dimensions may differ. Memory that was never written is not touched, so that on a CPU a
    generous cache costs only what is used.
    """

    keys: torch.Tensor
    values: torch.Tensor
    format: CacheFormat = CacheFormat.F16
    key_scales: torch.Tensor | None = None
    value_scales: torch.Tensor | None = None

    @classmethod
    def allocate(
        cls,
        *,
        layers: int,
        slots: int,
        kv_heads: int,
        key_dim: int,
        value_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        format: CacheFormat = CacheFormat.F16,
    ) -> Self:
        """An empty cache of `slots` tokens; `dtype`: that of floats, where the format has them.

        Raises `ValueError` for a head dimension that the format cannot store.
        """
        keys, key_scales = format.allocate(layers, slots, kv_heads, key_dim, dtype=dtype, device=device)
        values, value_scales = format.allocate(layers, slots, kv_heads, value_dim, dtype=dtype, device=device)
        return cls(keys, values, format, key_scales, value_scales)

    def layer(self, number: int) -> CacheLayer:
        """One layer's part."""
        scales = (None if both is None else both[number] for both in (self.key_scales, self.value_scales))
        return CacheLayer(self.format, self.keys[number], self.values[number], *scales)

    def move(self, layer: int, sources: torch.Tensor, targets: torch.Tensor, turns: torch.Tensor) -> None:
        """Copy n tokens of one layer from slots to slots, int64 [n] each, their keys turned on the way.

        `turns`, complex64 [n, pairs]: what neighbouring components of a key, read as complex numbers, are
        multiplied by; components behind the pairs stay. All sources are read before a target is written.
        """
        own = self.layer(layer)
        keys = _turned(_read(own, sources), turns)
        values = own.values[sources]
        value_scales = None if own.value_scales is None else own.value_scales[sources]
        if own.key_scales is None:
            own.keys.index_copy_(0, targets, keys.to(own.keys.dtype))
        else:
            integers, scales = self.format.quantise(hadamard(keys))
            own.keys.index_copy_(0, targets, integers)
            own.key_scales.index_copy_(0, targets, scales)
        own.values.index_copy_(0, targets, values)
        if own.value_scales is not None and value_scales is not None:
            own.value_scales.index_copy_(0, targets, value_scales)


def scale_groups(dim: int) -> int:
    """How many scales a head of `dim` elements has."""
    return -(-dim // SCALE_GROUP)


def hadamard_size(dim: int) -> int:
    """The size of the blocks that rotate a head: the largest power of two that divides `dim`."""
    return dim & -dim


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """x [..., dim] times a block-diagonal matrix of normalised Hadamard matrices; its own inverse.

    Sylvester's order: entry (i, j) of a block of n is (-1)^(bits set in i & j) / sqrt(n).
    """
    size = hadamard_size(x.shape[-1])
    stride = 1
    while stride < size:
        one, other = x.reshape(*x.shape[:-1], -1, 2, stride).unbind(-2)
        x = torch.stack((one + other, one - other), -2).flatten(-3)
        stride *= 2
    return x / math.sqrt(size)


def _read(layer: CacheLayer, slots: torch.Tensor) -> torch.Tensor:
    """Keys of these slots as they were before any rounding's rotation: float32 [n, kv_heads, key_dim]."""
    if layer.key_scales is None:
        return layer.keys[slots].float()
    return hadamard(layer.format.dequantise(layer.keys[slots], layer.key_scales[slots]))


def _turned(keys: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Keys float32 [n, kv_heads, dim] with their first pairs multiplied by complex64 [n, pairs]; in place."""
    turned = 2 * turns.shape[1]
    pairs = torch.view_as_complex(keys[..., :turned].reshape(*keys.shape[:-1], -1, 2))
    keys[..., :turned] = torch.view_as_real(pairs * turns[:, None]).flatten(-2)
    return keys


def _elements(rows: torch.Tensor, format: CacheFormat) -> int:
    return rows.shape[-1] * (2 if format is CacheFormat.Q4 else 1)


def _groups(x: torch.Tensor) -> torch.Tensor:
    """[..., dim] as [..., groups, SCALE_GROUP], filled up with zeros."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % SCALE_GROUP))
    return padded.view(*x.shape[:-1], -1, SCALE_GROUP)


def _as_nibbles(integers: torch.Tensor) -> torch.Tensor:
    """int8 [..., dim] of -8 to 7 as uint8 [..., dim / 2]."""
    low, high = (integers + 8).to(torch.uint8).view(*integers.shape[:-1], -1, 2).unbind(-1)
    return low.bitwise_or_(high << 4)


def _of_nibbles(octets: torch.Tensor) -> torch.Tensor:
    """uint8 [..., dim / 2] as int8 [..., dim] of -8 to 7."""
    return torch.stack((octets & 15, octets >> 4), -1).flatten(-2).to(torch.int8) - 8
