"""Adaptive-p: favours tokens near a target probability, and moves it to keep an average."""

import numpy as np

from engine.sampling.candidates import Candidates, bounded
from engine.types import SamplingParams

_WIDTH = 0.3
"""The unit in which distances from the target are measured."""
_PEAK = 5.0
"""The logit of a token right at the target."""
_SHARPNESS = 10.0
"""How fast logits fall with the distance."""


class AdaptiveP:
    """The adaptive-p sampler of one request of KoboldCpp's later versions.

    The average is exponential, with `adaptive_decay` (0.01 to 0.99), over the model's own probabilities
    of the tokens drawn, and starts as if `adaptive_target` had been met for ever.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._target = params.adaptive_target
        self._decay = min(0.99, max(0.01, params.adaptive_decay))
        self._weight = 1 / (1 - self._decay)
        self._sum = self._target * self._weight

    def reshape(self, candidates: Candidates) -> Candidates:
        """l <- 5 - 10 d^2 / (1 + d), d = |p - t| / 0.3; t is what brings the average back to the target."""
        target = min(1.0, max(0.0, 2 * self._target - self._sum / self._weight))
        distance = np.abs(candidates.probabilities() - target) / _WIDTH
        logits = _PEAK - _SHARPNESS * distance**2 / (1 + distance)
        return Candidates.ranked(candidates.ids, bounded(logits))

    def learn(self, probability: float) -> None:
        """Take notice of the model's own probability of the token that was drawn."""
        self._sum = probability + self._decay * self._sum
        self._weight = 1 + self._decay * self._weight
