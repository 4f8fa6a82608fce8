"""The tokens that are still in play for one draw."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_CANDIDATES = 5000
"""Only the so many most likely tokens enter the chain, as in KoboldCpp 1.76."""

BOUND = float(np.float32(1e30))
"""Finite logits stay within this, on either side: far from every real one, and far from infinity."""

LEAST = -1e38
"""What penalties make of a logit is no lower, however large they are: minus infinity excludes a token."""
_LARGEST = np.finfo(np.float32).max

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Token ids and their logits, by falling logit.

    `ids`: int64 [n]; `logits`: float32 [n], all finite; n >= 1.
    """

    ids: Ids
    logits: Logits

    @classmethod
    def ranked(cls, ids: Ids, logits: Logits) -> "Candidates":
        """Brings ids (below 2^31) and finite logits into order: falling logits, then rising ids."""
        # One integer for both: sorting those is several times as fast as sorting one by the other.
        # As signed integers, the bits of floats are in order if those of negative ones are turned round;
        # adding 0 makes one zero of the two.
        rank = _turned((logits + np.float32(0)).view(np.int32))
        keys = ~rank.astype(np.int64) << 32 | ids
        keys.sort()
        ranked = _turned((~keys >> 32).astype(np.int32)).view(np.float32)
        return cls(keys & 0xFFFFFFFF, ranked)

    def keep(self, count: int) -> "Candidates":
        """The first `count`, at least one."""
        count = max(1, count)
        return self if count >= len(self.ids) else Candidates(self.ids[:count], self.logits[:count])

    def probabilities(self) -> Probabilities:
        """Softmax over the candidates left, float64 [n]: sums are compared with limits like 0.999."""
        odds = np.exp(self.logits - self.logits[0]).astype(np.float64)
        probabilities: Probabilities = odds / odds.sum()
        return probabilities

    def log_probabilities(self) -> Probabilities:
        """Natural logarithms of the softmax, float64 [n]; finite even where a probability is 0."""
        below = self.logits.astype(np.float64) - float(self.logits[0])
        log_p: Probabilities = below - np.log(np.exp(below).sum())
        return log_p


def bounded(logits: npt.NDArray[np.floating]) -> Logits:
    """Float32 within `BOUND`, whatever an extreme setting made of them; what is no number goes lowest."""
    # of a number and what is none, fmax takes the number
    limited: Logits = np.minimum(np.fmax(logits, -BOUND), BOUND).astype(np.float32, copy=False)
    return limited


def finite(logits: Logits) -> Logits:
    """Within float32, which extreme settings leave, but no further in: those at `BOUND` keep their order."""
    return logits.clip(-_LARGEST, _LARGEST)


def _turned(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Turns the order of negative floats round; its own inverse."""
    return bits ^ (bits >> 31 & 0x7FFFFFFF)
