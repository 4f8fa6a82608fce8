"""Integers of 8 bits, four in a word of 32 bits: products, look-ups, and the way to single numbers."""

import triton
import triton.language as tl

from engine.kernels.cuda.formats import CODEBOOK
from engine.kernels.cuda.interpret import INTERPRETED


@triton.constexpr_function
def _codebook_word(at: int) -> int:
    """Four bytes of the codebook as a signed word."""
    return int.from_bytes(
        bytes(value & 255 for value in CODEBOOK[4 * at : 4 * at + 4]), "little", signed=True
    )


@triton.jit
def dot4(weights: tl.tensor, x: tl.tensor, total: tl.tensor, is_signed: tl.constexpr) -> tl.tensor:
    """`total` plus the products of the four bytes of `weights` with the four signed ones of `x`, int32."""
    if INTERPRETED:
        for at in tl.static_range(4):
            total += byte_of(weights, at, is_signed) * byte_of(x, at, True)
        return total
    if is_signed:
        return tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [weights, x, total], tl.int32, is_pure=True, pack=1
        )
    return tl.inline_asm_elementwise(
        "dp4a.u32.s32 $0, $1, $2, $3;", "=r,r,r,r", [weights, x, total], tl.int32, is_pure=True, pack=1
    )


@triton.jit
def byte_of(word: tl.tensor, at: tl.constexpr, is_signed: tl.constexpr) -> tl.tensor:
    """Byte `at` of each word, 0 the lowest, as int32."""
    if is_signed:
        return (word << (24 - 8 * at)) >> 24
    return (word >> (8 * at)) & 255


@triton.jit
def byte_value(word: tl.tensor, at: tl.constexpr, is_signed: tl.constexpr, offset: tl.constexpr) -> tl.tensor:
    """Byte `at` of each word minus `offset`, as float32."""
    if INTERPRETED:
        value = (byte_of(word, at, is_signed) - offset).to(tl.float32)
    else:
        # Under the exponent of 2^23 a byte is the end of a mantissa: no conversion, and the offset for
        # nothing.
        lifted: tl.constexpr = 8388608 + (128 if is_signed else 0)
        bits = tl.inline_asm_elementwise(
            "prmt.b32 $0, $1, 0x4B000000, $2;",
            "=r,r,r",
            [word ^ -0x7F7F7F80 if is_signed else word, 0x7440 + at],
            tl.int32,
            is_pure=True,
            pack=1,
        )
        value = bits.to(tl.float32, bitcast=True) - (lifted + offset)
    return value


@triton.jit
def codebook_bytes(places: tl.tensor) -> tl.tuple:
    """The codebook's values for each word's nibbles, as signed bytes: of its lower and of its upper half."""
    t0: tl.constexpr = _codebook_word(0)
    t1: tl.constexpr = _codebook_word(1)
    t2: tl.constexpr = _codebook_word(2)
    t3: tl.constexpr = _codebook_word(3)
    if INTERPRETED:
        return _looked_up(places, t0, t1, t2, t3), _looked_up(places >> 16, t0, t1, t2, t3)
    # A permutation picks from eight bytes by three bits of each nibble: once from either half of the
    # codebook, then by the fourth bit from the two results.
    return tl.inline_asm_elementwise(
        """
        {
            .reg .b32 eighth, half, lower, upper;
            and.b32 eighth, $2, 0x77777777;
            shr.u32 half, $2, 1;
            and.b32 half, half, 0x44444444;
            or.b32 half, half, 0x32103210;
            prmt.b32 lower, $3, $4, eighth;
            prmt.b32 upper, $5, $6, eighth;
            prmt.b32 $0, lower, upper, half;
            shr.u32 eighth, eighth, 16;
            shr.u32 half, half, 16;
            prmt.b32 lower, $3, $4, eighth;
            prmt.b32 upper, $5, $6, eighth;
            prmt.b32 $1, lower, upper, half;
        }
        """,
        "=&r,=&r,r,r,r,r,r",
        [places, t0, t1, t2, t3],
        (tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def _looked_up(
    places: tl.tensor, t0: tl.constexpr, t1: tl.constexpr, t2: tl.constexpr, t3: tl.constexpr
) -> tl.tensor:
    """What `codebook_bytes` finds for the lower half, in plain arithmetic. `t0` .. `t3`: the codebook."""
    values = tl.zeros_like(places)
    for at in tl.static_range(4):
        place = (places >> (4 * at)) & 15
        lower = tl.where((place & 4) == 0, t0, t1)
        upper = tl.where((place & 4) == 0, t2, t3)
        word = tl.where(place < 8, lower, upper)
        values |= ((word >> (8 * (place & 3))) & 255) << (8 * at)
    return values


@triton.jit
def half_of(word: tl.tensor, upper: tl.constexpr) -> tl.tensor:
    """One of the two float16 in each word, as float32."""
    bits = word >> 16 if upper else word
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def split4(words: tl.tensor) -> tl.tuple:
    """[..., rows, groups, 4] to its four [rows, groups]; free where a thread holds all four."""
    rows: tl.constexpr = words.shape[0]
    groups: tl.constexpr = words.shape[1]
    even, odd = tl.split(tl.reshape(words, (rows, groups, 2, 2)))
    w0, w2 = tl.split(even)
    w1, w3 = tl.split(odd)
    return w0, w1, w2, w3
