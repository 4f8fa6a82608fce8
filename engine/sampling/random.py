"""The random numbers of one request."""

import secrets

import numpy as np


def fresh_seed() -> int:
    """A seed for a request that names none: positive and small enough for every client."""
    return 1 + secrets.randbelow(2**31 - 1)


class MersenneTwister:
    """MT19937 with the draw of libstdc++'s `std::discrete_distribution`, as KoboldCpp 1.76 uses it.

    The same seed and the same probabilities give the same token as there.
    """

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed % 2**32)

    def uniform(self) -> float:
        """A double in [0, 1) of two 32-bit outputs, the first one the lower."""
        low, high = self._state.randint(0, 2**32, size=2, dtype=np.uint32)
        return min((int(low) + int(high) * 2**32) / 2**64, 1 - 2**-53)
