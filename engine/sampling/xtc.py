"""Exclude top choices: the likeliest of several good tokens step back."""

import numpy as np

from engine.sampling.candidates import Candidates
from engine.sampling.truncation import Step

_STEP_BACK = np.float32(999)


def exclude_top_choices(threshold: float) -> Step:
    """Lower all tokens with a probability of at least `threshold` but the least likely of them.

    Lowered ones stay, 999 below their logit. Source: KoboldCpp 1.76.
    """

    def step(candidates: Candidates) -> Candidates:
        good = int(np.count_nonzero(candidates.probabilities() >= threshold))
        if good < 2:
            return candidates
        logits = candidates.logits.copy()
        logits[: good - 1] -= _STEP_BACK
        return Candidates.ranked(candidates.ids, logits)

    return step
