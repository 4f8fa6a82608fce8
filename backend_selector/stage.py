"""What a device has of a model, and the memory that takes. Pure.

The native kernels keep matrices packed, little larger than in the file, the Triton kernels regrouped. The
reference kernels plan with the memory that is free when they start: up to half of it holds matrices in
float32, taken in the file's order as long as they fit; the others stay packed in the file and are dequantised
at each use, which is slow. The KV cache gets what is left.
"""

from dataclasses import dataclass

from backend_selector.facts import CACHE_BITS, FileFacts, PartSizes, Wishes
from engine.native import NATIVE_KERNELS

TRITON = "triton"
"""The name of the kernels that alone can quantise the KV cache, and need a workspace of their own."""

_PANELS = 1.04
"""The most that matrices grow when the native kernels take them over."""
_FLOAT32 = 4
_SCALE_GROUP = 32
"""Elements of a head that share a float16 scale in a quantised cache."""
_SLAB = 24 * 2**20
"""A part of a matrix that is dequantised at a time, for products with many rows."""
_LIBRARIES = 96 * 2**20
"""Compiled kernels, and the workspace of cuBLAS."""
_GRAPHS = 128 * 2**20
"""Recorded decode steps, which there are where the whole model is on one card."""
_LOGIT_COPIES = 3
"""While tokens are drawn: the logits, a copy to penalise, and the sort keys."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of a model side by side on one device; bytes."""

    device: str
    kernels: str
    blocks: int
    free: int
    weights: int
    """At most."""
    workspace: int
    kv_bytes_per_token: int
    """Keys and values of one token in these blocks, as the cache holds them."""
    dense: bool
    """Whether all matrices are in the form that is fast to compute with."""

    @property
    def room(self) -> int:
        """What is left for the KV cache; never negative."""
        return max(0, self.free - self.weights - self.workspace)

    @property
    def margin(self) -> int:
        """What automatic decisions leave free: for other programs, and where no workspace is planned."""
        return self.free // (32 if self.kernels == TRITON else 8)

    def tokens(self, margin: int = 0) -> int | None:
        """How many tokens the cache can hold if so much stays free; None: any number, no block is here."""
        if self.weights + self.workspace + margin > self.free:
            return 0
        return (self.room - margin) // self.kv_bytes_per_token if self.blocks else None


def make_stage(
    file: FileFacts,
    wishes: Wishes,
    sizes: PartSizes,
    *,
    device: str,
    kernels: str,
    free: int,
    blocks: int,
    output: bool = True,
) -> Stage:
    """A stage of these matrices on a device. `output`: whether the logits are made there."""
    dense = True
    if kernels in NATIVE_KERNELS:
        weights = round(_PANELS * sizes.packed) + sizes.other
    elif kernels == TRITON:
        weights = sizes.planes + sizes.other
    else:
        budget = free // 2
        weights = min(sizes.dense, budget) + sizes.other
        dense = sizes.dense <= budget
    whole = output and blocks == file.layers
    workspace = _workspace(file, wishes, output=output, graphs=whole) if kernels == TRITON else 0
    shape = file.cache_shape
    heads = _row_bytes(kernels, wishes.quantkv, shape.key_dim) + _row_bytes(
        kernels, wishes.quantkv, shape.value_dim
    )
    return Stage(device, kernels, blocks, free, weights, workspace, blocks * shape.kv_heads * heads, dense)


def cache_row_bytes(quantkv: int, dim: int) -> int:
    """Bytes of one head's key or value of `dim` elements in the cache of kernels that can quantise it.

    The same as `engine.kv_cache.CacheFormat.row_bytes`, which needs torch; the tests hold them together.
    """
    bits = CACHE_BITS[quantkv]
    return dim * bits // 8 + (0 if bits == 16 else 2 * -(-dim // _SCALE_GROUP))


def _row_bytes(kernels: str, quantkv: int, dim: int) -> int:
    if kernels == TRITON:
        return cache_row_bytes(quantkv, dim)
    return dim * (2 if kernels in NATIVE_KERNELS else _FLOAT32)


def _workspace(file: FileFacts, wishes: Wishes, *, output: bool, graphs: bool) -> int:
    """An estimate from above of what a step of the Triton kernels allocates.

    At its widest a block holds the stream of activations in four forms, queries, keys and values in two, and
    both products of the feed-forward network in two.
    """
    widths = file.widths
    row = _FLOAT32 * (4 * widths.model + 2 * widths.attention + 4 * widths.feed_forward)
    logits = _LOGIT_COPIES * _FLOAT32 * widths.vocabulary * wishes.sequences if output else 0
    return wishes.step_tokens * row + logits + _SLAB + _LIBRARIES + (_GRAPHS if graphs else 0)
