"""Exclude top choices: the likeliest of several good tokens step back."""

import numpy as np

from engine.sampling.candidates import Candidates, finite
from engine.sampling.truncation import Step

_STEP_BACK = 999.0
_RESOLUTION = 1e-6
"""Of float32, nearly: a smaller part of a logit may be lost when it is subtracted."""


def exclude_top_choices(threshold: float) -> Step:
    """Lower all tokens with a probability of at least `threshold` but the least likely of them.

    Lowered ones stay, at least 999 below that one. Source: KoboldCpp 1.76, where it is 999 below their own
    logit, which is the same for thresholds and logits as they are usual.
    """

    def step(candidates: Candidates) -> Candidates:
        good = int(np.count_nonzero(candidates.probabilities() >= threshold))
        if good < 2:
            return candidates
        logits = candidates.logits.copy()
        best, least = float(logits[0]), float(logits[good - 1])
        logits[: good - 1] -= np.float32(max(_STEP_BACK, _RESOLUTION * abs(best)) + best - least)
        return Candidates.ranked(candidates.ids, finite(logits))

    return step
