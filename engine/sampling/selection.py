"""The choice among the candidates that the chain has left."""

from dataclasses import dataclass

import numpy as np

from engine.sampling.adaptive import AdaptiveP
from engine.sampling.candidates import Candidates
from engine.sampling.chain import uses_mirostat
from engine.sampling.mirostat import Mirostat
from engine.sampling.random import MersenneTwister
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.sampling.xtc import exclude_top_choices
from engine.types import SamplingParams

_MAX_XTC_THRESHOLD = 0.5
"""No two tokens are likelier than that."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidates behind all samplers, and which of them was drawn."""

    candidates: Candidates
    index: int

    @property
    def token(self) -> int:
        """The token drawn."""
        return int(self.candidates.ids[self.index])


class Selector:
    """Draws for one request: XTC and adaptive-p, or mirostat in their place, then a random number.

    Keeps the state that goes on from token to token: random numbers, mirostat's mu and adaptive-p's
    average. It never goes back, also where the sequence does.
    """

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self._random = MersenneTwister(seed)
        self._unused: list[float] = []
        self.mirostat = Mirostat(params) if uses_mirostat(params) else None
        plain = self.mirostat is None
        self._adaptive = AdaptiveP(params) if plain and params.adaptive_target > 0 else None
        excludes = plain and params.xtc_probability > 0 and params.xtc_threshold <= _MAX_XTC_THRESHOLD
        self._xtc_probability = params.xtc_probability if excludes else 0.0
        self._xtc = exclude_top_choices(params.xtc_threshold)

    @property
    def plain(self) -> bool:
        """Whether nothing but a random number chooses."""
        return self.mirostat is None and self._adaptive is None and self._xtc_probability <= 0

    def uniform(self) -> float:
        """The next random number, in [0, 1)."""
        return self._unused.pop() if self._unused else self._random.uniform()

    def put_back(self, u: float) -> None:
        """Let the last number that was not put back be the next one again."""
        self._unused.append(u)

    def select(self, candidates: Candidates, raw: VocabularyLogits) -> Selection:
        """One of the candidates; `raw` holds the model's own logits."""
        if self.mirostat is not None:
            candidates = self.mirostat.narrow(candidates, raw.vocab_size)
        excludes = self._xtc_probability > 0 and len(candidates.ids) > 1
        if excludes and self._random.single() < self._xtc_probability:
            candidates = self._xtc(candidates)
        if self._adaptive is not None:
            candidates = self._adaptive.reshape(candidates)
        selection = Selection(candidates, _draw(candidates, self.uniform()))
        if self.mirostat is not None:
            self.mirostat.learn(candidates, selection.index)
        if self._adaptive is not None:
            logit = raw.take(np.array([selection.token]))[0]
            self._adaptive.learn(float(np.exp(logit - raw.log_total())))
        return selection


def _draw(candidates: Candidates, u: float) -> int:
    """The first candidate at which the sum of probabilities reaches u in [0, 1)."""
    cumulative = candidates.probabilities().cumsum()
    return min(int(cumulative.searchsorted(u)), len(cumulative) - 1)
