"""Temperature, fixed or by entropy, and smoothing: pure steps that change logits.

Definitions: KoboldCpp 1.76; the curve of `smoothing` and negative ranges: its later versions.
"""

import math

import numpy as np

from engine.sampling.candidates import BOUND, Candidates, bounded, finite
from engine.sampling.truncation import Step

COLDEST = 1e-8
"""From this down a temperature is none: two usual float32 logits that differ at all would be further apart
than any draw can tell, and logits at their bound would leave float32."""


def temperature(t: float) -> Step:
    """Divide the logits by t; t <= `COLDEST` keeps the likeliest token alone."""
    return lambda candidates: _divided(candidates, t)


def dynamic_temperature(t: float, spread: float, exponent: float) -> Step:
    """Divide by a temperature between t - spread and t + spread, the higher the less certain the model is.

    T = lo + (hi - lo) * (H / ln n)^exponent, H the entropy of the n candidates, lo and hi at least 0.
    Nothing happens to a single candidate.
    """
    low, high = max(0.0, t - spread), max(0.0, t + spread)
    power = max(0.0, exponent)

    def step(candidates: Candidates) -> Candidates:
        n = len(candidates.ids)
        if n == 1:
            return candidates
        log_p = candidates.log_probabilities()
        entropy = -float(np.exp(log_p) @ log_p)
        share = min(1.0, max(0.0, entropy / math.log(n)))
        return _divided(candidates, low + (high - low) * share**power)

    return step


def smoothing(factor: float, curve: float) -> Step:
    """Bend the logits: h - k f x^2 + s f x^3 with x = l - h, h the largest logit.

    k = (3 - curve) / 2 and s = (curve - 1) / 2; a curve of 1 is the plain parabola. Nothing happens to a
    single candidate.
    """
    square, cube = _limited(factor * (3 - curve) / 2), _limited(factor * (curve - 1) / 2)

    def step(candidates: Candidates) -> Candidates:
        if len(candidates.ids) == 1:
            return candidates
        highest = float(candidates.logits[0])
        x = candidates.logits.astype(np.float64) - highest
        logits = bounded(highest + x * x * (cube * x - square))
        if 1 <= curve <= 3:
            return Candidates(candidates.ids, logits)
        # elsewhere unlikely tokens rise again
        return Candidates.ranked(candidates.ids, logits)

    return step


def _divided(candidates: Candidates, t: float) -> Candidates:
    if not t > COLDEST:
        return candidates.keep(1)
    return Candidates(candidates.ids, finite(candidates.logits / np.float32(_limited(t))))


def _limited(value: float) -> float:
    return max(-BOUND, min(BOUND, value))
