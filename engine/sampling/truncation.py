"""The truncations: pure steps that keep a part of the candidates, at least one.

Definitions: KoboldCpp 1.76 (the recorded sampler vectors in the tests are its own results), `nsigma`:
its later versions. p is the softmax over the candidates that are left, by falling logit.
"""

import math
from collections.abc import Callable

import numpy as np

from engine.sampling.candidates import Candidates

Step = Callable[[Candidates], Candidates]

_FLAT = 1e-6
"""Curvatures that sum to no more than this count as all alike."""


def top_k(k: int) -> Step:
    """Keep the k largest."""
    return lambda candidates: candidates.keep(k)


def top_p(p: float) -> Step:
    """Keep the shortest run of most likely tokens whose probabilities reach p."""

    def step(candidates: Candidates) -> Candidates:
        reached = candidates.probabilities().cumsum().searchsorted(p)
        return candidates.keep(int(reached) + 1)

    return step


def min_p(p: float) -> Step:
    """Keep tokens at least p > 0 times as likely as the likeliest; of p > 1 the first one alone."""
    distance = min_p_distance(p)

    def step(candidates: Candidates) -> Candidates:
        logits = candidates.logits
        return candidates.keep(int(np.count_nonzero(logits >= logits[0] - distance)))

    return step


def min_p_distance(p: float) -> np.float32:
    """How far below the largest logit `min_p` lets a logit be: -ln p; minus infinity, none, for p > 1."""
    return np.float32(-math.log(p) if p <= 1 else -math.inf)


def top_a(a: float) -> Step:
    """Keep tokens with a probability of at least a times the square of the likeliest's."""

    def step(candidates: Candidates) -> Candidates:
        p = candidates.probabilities()
        return candidates.keep(int(np.count_nonzero(p >= a * p[0] ** 2)))

    return step


def tail_free(z: float) -> Step:
    """Cut where the curve of probabilities has run flat.

    Of s_i = |(p_i - p_i+1) - (p_i+1 - p_i+2)|, normalised, the running sum is taken; the first i >= 1
    where it exceeds z is how many tokens are kept. Needs more than two candidates.
    """

    def step(candidates: Candidates) -> Candidates:
        if len(candidates.ids) <= 2:
            return candidates
        curvature = np.abs(np.diff(candidates.probabilities(), 2))
        total = curvature.sum()
        shares = curvature / total if total > _FLAT else np.full(len(curvature), 1 / len(curvature))
        first = max(1, int(shares.cumsum().searchsorted(z, side="right")))
        return candidates.keep(first) if first < len(curvature) else candidates

    return step


def typical(mass: float) -> Step:
    """Keep the tokens whose surprise is nearest to the expected one.

    By rising |-ln p_i - H|, H = -sum p ln p, until their probabilities exceed `mass`; the one that
    crosses is kept.
    """

    def step(candidates: Candidates) -> Candidates:
        log_p = candidates.log_probabilities()
        p = np.exp(log_p)
        nearest = np.abs(log_p - p @ log_p).argsort(kind="stable")
        count = int(p[nearest].cumsum().searchsorted(mass, side="right")) + 1
        kept = np.sort(nearest[:count])
        return Candidates(candidates.ids[kept], candidates.logits[kept])

    return step


def nsigma(n: float) -> Step:
    """Keep logits at most n population standard deviations of all below the largest."""

    def step(candidates: Candidates) -> Candidates:
        logits = candidates.logits.astype(np.float64)
        return candidates.keep(int(np.count_nonzero(logits >= logits[0] - n * logits.std())))

    return step
