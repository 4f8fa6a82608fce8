"""Groups of 32 weights, unpacked from the planes of a matrix: eight words of bytes, and scales."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from engine.kernels.cuda.formats import (
    has_halves,
    has_minimum,
    high_bits,
    is_looked_up,
    is_two_level,
    low_bits,
)
from engine.kernels.cuda.interpret import INTERPRETED
from engine.kernels.cuda.planes import Planes
from engine.kernels.cuda.words import codebook_bytes, half_of, split4


class PlanePointers(NamedTuple):
    """The planes of a matrix, as arguments of a kernel: tensors, or None where the type has none."""

    low: Any
    high: Any
    scales: Any
    supers: Any


def plane_pointers(planes: Planes) -> PlanePointers:
    """The planes as arguments."""
    return PlanePointers(planes.low, planes.high, planes.scales, planes.supers)


@triton.jit
def place(
    planes: tl.tuple, row: tl.tensor, group: tl.tensor, groups: tl.tensor, format: tl.constexpr
) -> tl.tuple:
    """Pointers to what rows `row` [rows] hold of groups `group` [1, groups], of `groups` in a row.

    To the planes, [rows, groups, words of one load], or [rows, groups] where a group has one word, and to
    scales and supers, [rows, groups]. Where the type has no such part, the pointer is another, never read.
    """
    first = row.to(tl.int64)[:, None] * groups
    words: tl.constexpr = 2 if low_bits(format) == 2 else 4
    low = (
        (planes.low + first * low_bits(format))[:, :, None]
        + low_bits(format) * group[:, :, None]
        + tl.arange(0, words)[None, None, :]
    )
    single = hidden(group)
    high = low
    if high_bits(format) == 1:
        high = planes.high + first + single
    elif high_bits(format) == 2:
        high = (planes.high + 2 * first)[:, :, None] + 2 * group[:, :, None] + tl.arange(0, 2)[None, None, :]
    scales = planes.scales + first + single
    supers = scales
    if is_two_level(format):
        supers = planes.supers + (first >> 3) + (single >> 3)
    return low, high, scales, supers


@triton.jit
def hidden(group: tl.tensor) -> tl.tensor:
    """`group`, int32, in a way that the compiler does not see neighbours in it.

    A lane would else load what belongs to several neighbouring groups at once, and pass it on to the lanes
    that have their integers through shared memory, with barriers in the loop.
    """
    if INTERPRETED:
        same = group
    else:
        same = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [group], tl.int32, is_pure=True, pack=1)
    return same


@triton.jit
def advance(pointers: tl.tuple, groups: tl.constexpr, format: tl.constexpr) -> tl.tuple:
    """The pointers of `place`, so many groups further on, a multiple of 8."""
    low, high, scales, supers = pointers
    return (
        low + low_bits(format) * groups,
        high + high_bits(format) * groups,
        scales + groups,
        supers + groups // 8,
    )


@triton.jit
def load_words(pointers: tl.tuple, mask: tl.tensor, format: tl.constexpr, raised: tl.constexpr) -> tl.tuple:
    """The integers of groups: eight words [rows, groups], word k with weights 4k .. 4k+3 in its bytes.

    `pointers`: of `place`; `mask` [1 or rows, groups]. Bytes are what `Format` says, without the offset.
    `raised`: those of the last 16 are 16 times as large.
    """
    low, high, _, _ = pointers
    wide = mask[:, :, None]
    if low_bits(format) == 8:
        words = split4(_load(low, wide)) + split4(_load(low + 4, wide))
    elif low_bits(format) == 2:
        words = _pairs_of_bits(tl.split(_load(low, wide)), 0)
    else:
        words = _nibbles(split4(_load(low, wide)), format, raised)
    if high_bits(format) == 1:
        bits = _load(high, mask)
        top_bits = ()  # type: tuple[tl.tensor, ...]
        for k in tl.static_range(8):
            top_bits += (_moved(bits, k, low_bits(format)) & (0x01010101 << low_bits(format)),)
        words = _joined(words, top_bits)
    elif high_bits(format) == 2:
        upper = _pairs_of_bits(tl.split(_load(high, wide)), 4)
        words = _joined(words, upper)
    return words


@triton.jit
def _joined(lower: tl.tuple, upper: tl.tuple) -> tl.tuple:
    """Each word of `lower` with the bits of that of `upper`."""
    words = ()  # type: tuple[tl.tensor, ...]
    for k in tl.static_range(8):
        words += (lower[k] | upper[k],)
    return words


@triton.jit
def load_scales(pointers: tl.tuple, mask: tl.tensor, format: tl.constexpr) -> tl.tuple:
    """The scales of groups: (d, dmin, first, last, first minimum, last minimum).

    A weight of the first 16 is d * first * (q - offset) - dmin * first minimum, of the others alike. d, dmin
    are float32, the rest int32 or the constant 1. Types without a minimum have dmin = 0; where all 32 weights
    share a scale, first and last are the same.
    """
    _, _, scales, supers = pointers
    if is_two_level(format):
        head = tl.load(supers, mask=mask, other=0)
        small = _load(scales, mask).to(tl.int32)
    else:
        head = _load(scales, mask)
    if has_minimum(format):
        d = half_of(head, False)
        dmin = half_of(head, True) if is_two_level(format) else -half_of(head, True)
    else:
        d = head.to(tl.float32)
        dmin = 0.0
    if not is_two_level(format):
        parts = (1, 1, 1, 1)
    elif has_halves(format) and has_minimum(format):
        parts = (small & 15, (small >> 8) & 15, (small >> 4) & 15, (small >> 12) & 15)
    elif has_halves(format):
        parts = ((small << 24) >> 24, small >> 8, 1, 1)
    elif has_minimum(format):
        # Both have 6 bits: the word is not negative.
        parts = (small & 255, small & 255, small >> 8, small >> 8)
    else:
        parts = (small, small, 1, 1)
    return (d, dmin) + parts  # noqa: RUF005 -- Triton unpacks no tuples


@triton.jit
def _load(pointers: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """What is read once: it must not drive activations out of the cache."""
    return tl.load(pointers, mask=mask, other=0, eviction_policy="evict_first")


@triton.jit
def _nibbles(packed: tl.tuple, format: tl.constexpr, raised: tl.constexpr) -> tl.tuple:
    """Eight words from the four of a low plane of 4 bits."""
    first = ()  # type: tuple[tl.tensor, ...]
    last = ()  # type: tuple[tl.tensor, ...]
    for k in tl.static_range(4):
        if is_looked_up(format):
            lower, upper = codebook_bytes(packed[k])
        else:
            lower = packed[k] & 0x0F0F0F0F
            upper = packed[k] & -0x0F0F0F10 if raised else (packed[k] >> 4) & 0x0F0F0F0F
        first += (lower,)
        last += (upper,)
    return first + last


@triton.jit
def _pairs_of_bits(packed: tl.tuple, to: tl.constexpr) -> tl.tuple:
    """Eight words from two, four 2-bit integers each, in bits `to` and `to` + 1 of the bytes."""
    words = ()  # type: tuple[tl.tensor, ...]
    for word in tl.static_range(2):
        for k in tl.static_range(4):
            words += (_moved(packed[word], 2 * k, to) & (0x03030303 << to),)
    return words


@triton.jit
def _moved(word: tl.tensor, origin: tl.constexpr, to: tl.constexpr) -> tl.tensor:
    """The word with bit `origin` in the place of bit `to`."""
    if origin < to:
        return word << (to - origin)
    if origin > to:
        return word >> (origin - to)
    return word
