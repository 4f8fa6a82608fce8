"""Reads the shares of `--tensor-split`."""

import math
import re

MOST_SHARES = 16
"""Devices that may be named; llama.cpp's figure."""


def read_shares(text: str) -> tuple[float, ...]:
    """Numbers with commas or spaces between them, as in `7,3`.

    Raises `ValueError` for what is no number of 0 or more, for too many, and for nothing but zeros.
    """
    words = re.split(r"[\s,]+", text.strip(), maxsplit=MOST_SHARES)
    if len(words) > MOST_SHARES:
        raise ValueError(f"there may be {MOST_SHARES} shares at most")
    return checked_shares(tuple(float(word) for word in words))


def checked_shares(shares: tuple[float, ...]) -> tuple[float, ...]:
    """The shares themselves. Raises `ValueError` for those that make no sense."""
    if not shares or not any(shares) or not all(math.isfinite(share) and share >= 0 for share in shares):
        raise ValueError("shares are numbers of 0 and more, and not all 0")
    if len(shares) > MOST_SHARES:
        raise ValueError(f"there may be {MOST_SHARES} shares at most")
    return shares
