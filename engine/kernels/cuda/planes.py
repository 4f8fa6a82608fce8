"""A matrix of the file as kernels read it: planes of bits, in groups of 32 weights. Torch alone, any device.

The words of a group are little-endian int32. Word k of the unpacked group, 0 <= k < 8, has weights 4k .. 4k+3
in its bytes, and so:

    low plane, 4 bits    4 words: byte j holds weight j in its lower and weight 16 + j in its upper nibble;
                         with a codebook, the lower half of word i holds weights 4i .. 4i+3, one nibble each,
                         the upper half weights 16+4i .. 16+4i+3, for the look-up by byte permutation
    low plane, 2 bits    2 words: bits 2j, 2j+1 of byte b in word i hold weight 4 (4i + j) + b
    low plane, 8 bits    8 words: byte j holds weight j
    high plane, 1 bit    1 word: bit k of byte b holds weight 4k + b
    high plane, 2 bits   2 words, as the low plane of 2 bits

Scales keep the bits of the file, so that dequantised weights are exactly those of the file:

    one level            `scales` [m, groups]: d float16, or (d, min) as two float16 in an int32
    two levels           `scales` [m, groups]: two bytes in an int16 (the scales of both halves, or scale and
                         minimum, or for Q2_K both nibble pairs), or one int8;
                         `supers` [m, groups / 8]: d float16, or (d, dmin) as two float16 in an int32
"""

from dataclasses import dataclass

import torch

from engine.gguf import GGMLType
from engine.kernels.cuda.blocks import Blocks, read_blocks
from engine.kernels.cuda.formats import CODEBOOK, FLOATS, FORMATS, GROUP, GROUPS_PER_SUPER, Format

_SLAB_WEIGHTS = 8 * 2**20
"""Weights repacked at a time; each takes some ten bytes on the way."""
_FLOAT_DTYPES = {
    GGMLType.F32: torch.float32,
    GGMLType.F16: torch.float16,
    GGMLType.BF16: torch.bfloat16,
}


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """A packed matrix (m, n). `low` int32 [m, n / 32, words], or, for float types, the values [m, n].

    `high` int32 [m, n / 32, words], `scales` and `supers` as the module says; None where the type has none.
    """

    type: GGMLType
    shape: tuple[int, int]
    low: torch.Tensor
    high: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    supers: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        parts = (self.low, self.high, self.scales, self.supers)
        return sum(part.nbytes for part in parts if part is not None)

    def dequantize(self) -> torch.Tensor:
        """The weights, float32 [m, n], bit for bit as the reference package dequantises the file."""
        if self.type in FLOATS:
            return self.low.float()
        form, (m, n) = FORMATS[self.type], self.shape
        integers = self._integers(form).view(m, n // GROUP, 2, GROUP // 2)
        assert self.scales is not None
        scale, minimum = _scales(form, self.scales, self.supers)
        weights = integers.sub_(form.offset).float() * scale[..., None]
        if minimum is not None:
            weights = weights + minimum[..., None] if self.supers is None else weights - minimum[..., None]
        return weights.view(m, n)

    def _integers(self, form: Format) -> torch.Tensor:
        """int32 [m, groups, 32], in the order of the weights, the offset included."""
        low = self.low.view(torch.uint8)
        if form.looked_up:
            # [m, groups, word, half of the word, byte] to nibbles, the halves outermost
            halves = torch.unflatten(low, -1, (4, 2, 2)).transpose(-3, -2)
            places = torch.stack((halves & 15, halves >> 4), -1).flatten(-4)
            return torch.tensor(CODEBOOK, dtype=torch.int32, device=low.device)[places.int()]
        if form.low_bits == 8:
            return low.view(torch.int8).int()
        integers = torch.cat((low & 15, low >> 4), -1) if form.low_bits == 4 else _pairs_of_bits(low)
        if form.high_bits and self.high is not None:
            high = self.high.view(torch.uint8)
            upper = _pairs_of_bits(high) if form.high_bits == 2 else _single_bits(high)
            integers = integers | upper << form.low_bits
        return integers.int()


def pack_planes(data: torch.Tensor, ggml_type: GGMLType, shape: tuple[int, int]) -> Planes:
    """Repack the bytes of a matrix (m, n): `data` uint8 [m, bytes of a row], on the device it shall be on.

    Memory on the way stays bounded whatever the size. Raises ValueError for a type that is not kept packed,
    or bytes that do not fit the shape.
    """
    m, n = shape
    if not ggml_type.packed_natively:
        raise ValueError(f"{ggml_type.name} has no planes")
    if n % ggml_type.block_size or data.shape != (m, n // ggml_type.block_size * ggml_type.type_size):
        raise ValueError(f"{tuple(data.shape)} bytes are no matrix of {m} x {n} in {ggml_type.name}")
    if ggml_type in FLOATS:
        return Planes(ggml_type, shape, data.contiguous().view(_FLOAT_DTYPES[ggml_type]))
    form = FORMATS[ggml_type]
    step = max(1, _SLAB_WEIGHTS // n)
    parts: list[torch.Tensor] | None = None
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        slab = _pack_slab(form, read_blocks(data[rows], ggml_type))
        if parts is None:
            parts = [part.new_empty(m, *part.shape[1:]) for part in slab.values()]
        for whole, part in zip(parts, slab.values(), strict=True):
            whole[rows] = part
    assert parts is not None, "a matrix has rows"
    return Planes(ggml_type, shape, **dict(zip(slab, parts, strict=True)))


def _pack_slab(form: Format, blocks: Blocks) -> dict[str, torch.Tensor]:
    """The planes of some rows by name."""
    q = blocks.integers
    planes = {"low": _pack_low(form, q)}
    if form.high_bits == 1:
        planes["high"] = _pack_single_bits(q >> form.low_bits)
    elif form.high_bits == 2:
        planes["high"] = _pack_pairs_of_bits(q >> form.low_bits)
    halves = _as_one_word(blocks.halves)
    if blocks.bytes is None:
        return planes | {"scales": halves}
    return planes | {"scales": _as_one_word(blocks.bytes), "supers": halves}


def _as_one_word(parts: torch.Tensor) -> torch.Tensor:
    """[..., 1] or [..., 2] to [...], two elements becoming one of twice the width."""
    if parts.shape[-1] == 1:
        return parts.squeeze(-1)
    wide = {torch.float16: torch.int32, torch.uint8: torch.int16, torch.int8: torch.int16}[parts.dtype]
    return parts.contiguous().view(wide).squeeze(-1)


def _pack_low(form: Format, q: torch.Tensor) -> torch.Tensor:
    """The low plane of q uint8 [m, groups, 32]."""
    if form.low_bits == 8:
        return q.clone(memory_format=torch.contiguous_format).view(torch.int32)
    if form.low_bits == 2:
        return _pack_pairs_of_bits(q & 3)
    if form.looked_up:
        halves = torch.unflatten(q, -1, (2, 4, 2, 2)).transpose(-4, -3)
        nibbles = halves[..., 0] | halves[..., 1] << 4
        return _words(nibbles.flatten(-3))
    q = q & 15
    return _words(q[..., :16] | q[..., 16:] << 4)


def _words(packed: torch.Tensor) -> torch.Tensor:
    """uint8 [..., 4 k], contiguous, to int32 [..., k]."""
    return packed.view(torch.int32)


def _pack_pairs_of_bits(q: torch.Tensor) -> torch.Tensor:
    """2-bit integers uint8 [..., 32] to int32 [..., 2]."""
    parts = torch.unflatten(q, -1, (2, 4, 4))
    packed = parts[..., 0, :] | parts[..., 1, :] << 2 | parts[..., 2, :] << 4 | parts[..., 3, :] << 6
    return _words(packed.flatten(-2))


def _pack_single_bits(q: torch.Tensor) -> torch.Tensor:
    """Bits uint8 [..., 32] to int32 [..., 1]."""
    shifts = torch.arange(8, dtype=torch.uint8, device=q.device)[:, None]
    packed = (torch.unflatten(q, -1, (8, 4)) << shifts).sum(-2, dtype=torch.uint8)
    return _words(packed)


def _pairs_of_bits(packed: torch.Tensor) -> torch.Tensor:
    """The way back: uint8 [..., 8] to 2-bit integers [..., 32]."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=packed.device)[:, None]
    pairs: torch.Tensor = torch.unflatten(packed, -1, (2, 1, 4)) >> shifts & 3
    return pairs.flatten(-3)


def _single_bits(packed: torch.Tensor) -> torch.Tensor:
    """The way back: uint8 [..., 4] to bits [..., 32]."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)[:, None]
    return (packed.unsqueeze(-2) >> shifts & 1).flatten(-2)


def _scales(
    form: Format, scales: torch.Tensor, supers: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scales and minimums of all halves of the groups, float32 [m, groups, 2 or 1]."""
    if supers is None:
        pair = _floats(scales)
        return pair[..., :1], pair[..., 1:] if form.minimum else None
    pair = _floats(supers).repeat_interleave(GROUPS_PER_SUPER, 1)
    d, dmin = pair[..., :1], pair[..., 1:]
    if scales.dtype == torch.int8:
        return d * scales.float()[..., None], None
    if not form.minimum:
        return d * torch.unflatten(scales.view(torch.int8), -1, (-1, 2)).float(), None
    small = torch.unflatten(scales.view(torch.uint8), -1, (-1, 2))
    if form.halves:
        return d * (small & 15).float(), dmin * (small >> 4).float()
    return d * small[..., :1].float(), dmin * small[..., 1:].float()


def _floats(words: torch.Tensor) -> torch.Tensor:
    """float16 [...], or two of them in an int32, to float32 [..., 1 or 2]."""
    return words.unsqueeze(-1).contiguous().view(torch.float16).float()
