"""Groups of 32 weights as floats, exactly those of the file."""

import triton
import triton.language as tl

from engine.kernels.cuda.formats import has_minimum, is_signed, offset
from engine.kernels.cuda.groups import load_scales, load_words
from engine.kernels.cuda.words import byte_value


@triton.jit
def load_values(pointers: tl.tuple, mask: tl.tensor, format: tl.constexpr) -> tl.tensor:
    """The groups at `pointers` (of `groups.place`), float32 [rows, groups, 32]; what is masked is no weight.

    One rounding each, as the reference has it: the product of d, a small scale and an integer fits a float32
    wherever a minimum follows.
    """
    words = load_words(pointers, mask, format, False)
    d, dmin, first, last, first_minimum, last_minimum = load_scales(pointers, mask, format)
    eighths = ()  # type: tuple[tl.tensor, ...]
    for k in tl.static_range(8):
        scale = d * (first if k < 4 else last)
        quarter = ()  # type: tuple[tl.tensor, ...]
        for at in tl.static_range(4):
            value = byte_value(words[k], at, is_signed(format), offset(format)) * scale
            if has_minimum(format):
                value -= dmin * (first_minimum if k < 4 else last_minimum)
            quarter += (value,)
        eighths += (_interleaved(quarter[0], quarter[2], quarter[1], quarter[3]),)
    first_half = _interleaved(eighths[0], eighths[2], eighths[1], eighths[3])
    last_half = _interleaved(eighths[4], eighths[6], eighths[5], eighths[7])
    # Axes now: rows, groups, two of the byte, two of the word, the half. In the order of the weights:
    ordered = tl.permute(tl.join(first_half, last_half), (0, 1, 6, 4, 5, 2, 3))
    return tl.reshape(ordered, (words[0].shape[0], words[0].shape[1], 32))


@triton.jit
def _interleaved(a: tl.tensor, c: tl.tensor, b: tl.tensor, d: tl.tensor) -> tl.tensor:
    """[...] four times to [..., 2, 2], in the order a, b, c, d."""
    return tl.join(tl.join(a, c), tl.join(b, d))
