"""The truncations and temperature: pure steps, candidates -> candidates.

Definitions: KoboldCpp 1.76 (the recorded sampler vectors in the tests are its own results). Every
step keeps at least one candidate.
"""

from collections.abc import Callable

import torch

from engine.sampling.candidates import Candidates

Step = Callable[[Candidates], Candidates]


def top_k(k: int) -> Step:
    """Keep the k largest."""
    return lambda candidates: candidates.keep(k)


def top_p(p: float) -> Step:
    """Keep the shortest run of most likely tokens whose probabilities reach p."""

    def step(candidates: Candidates) -> Candidates:
        reached = candidates.probabilities().cumsum(0) >= p
        # Rounding may leave the whole sum a little under p: then everything stays.
        return candidates.keep(int(reached.int().argmax()) + 1) if bool(reached[-1]) else candidates

    return step


def min_p(p: float) -> Step:
    """Keep tokens at least p times as likely as the likeliest."""
    distance = torch.log(torch.tensor(p)).item()

    def step(candidates: Candidates) -> Candidates:
        kept = int((candidates.logits >= candidates.logits[0] + distance).sum())
        return candidates.keep(kept)

    return step


def temperature(t: float) -> Step:
    """Divide the logits by t > 0; t <= 0 keeps the likeliest token alone."""
    if t <= 0:
        return lambda candidates: candidates.keep(1)
    return lambda candidates: Candidates(candidates.ids, candidates.logits / t)
