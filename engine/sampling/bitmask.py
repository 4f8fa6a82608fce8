"""Sets of tokens as bits, the form in which grammars give them."""

import numpy as np
import numpy.typing as npt


def unpack(words: npt.NDArray[np.uint32], size: int) -> npt.NDArray[np.uint8]:
    """0 or 1 for each of `size` tokens: bit i % 32 of `words[i // 32]`, 0 beyond the last word."""
    return np.unpackbits(words.astype("<u4", copy=False).view(np.uint8), count=size, bitorder="little")
