"""The random numbers of one request."""

import secrets

import numpy as np
from numpy.random import (
    RandomState,
)  # by name: numpy loads it at the first use, and a request is no time for it

_AT_ONCE = 64
"""Outputs made at a time: a call costs as much as all of them."""


def fresh_seed() -> int:
    """A seed for a request that names none: positive and small enough for every client."""
    return 1 + secrets.randbelow(2**31 - 1)


class MersenneTwister:
    """MT19937 with the draws of KoboldCpp 1.76, which are libstdc++'s.

    The same seed and the same probabilities give the same token as there.
    """

    def __init__(self, seed: int) -> None:
        self._state = RandomState(seed % 2**32)
        self._outputs: list[int] = []
        """Made and not yet used, the next one last."""

    def uniform(self) -> float:
        """A double in [0, 1) of two 32-bit outputs, the first one the lower: `std::discrete_distribution`."""
        low, high = self._output(), self._output()
        return min((low + high * 2**32) / 2**64, 1 - 2**-53)

    def single(self) -> float:
        """A number in [0, 1) with the precision of a float, of one output: what XTC draws."""
        return min(float(np.float32(self._output())) / 2**32, 1 - 2**-24)

    def _output(self) -> int:
        if not self._outputs:
            made = self._state.randint(0, 2**32, size=_AT_ONCE, dtype=np.uint32)
            self._outputs = made[::-1].tolist()
        return self._outputs.pop()
