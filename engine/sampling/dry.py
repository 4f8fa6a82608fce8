"""DRY: the longer a repetition that a token would continue, the less likely the token becomes."""

import math
from collections.abc import Sequence

import numpy as np

from engine.sampling.breakers import Breakers
from engine.sampling.candidates import BOUND
from engine.sampling.suffix_matches import SuffixMatches
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.types import SamplingParams

_MAX_LOG = 88.7228391
"""Powers of the base stay below e to this, the largest float32."""
_FLAT_BASE = 1.000001
"""Powers of a base up to this are not limited."""


class Dry:
    """The DRY penalty of one request.

    Of the last `dry_penalty_last_n` tokens (<= 0: all) let k_j be how many tokens up to place j equal
    those at the end, no further back than the last breaker. The token behind j gets, if
    k_j >= `dry_allowed_length`: l <- l - multiplier * base^(n - allowed length), n the largest such k_j.

    Source: KoboldCpp 1.76 and the sampler's author (p-e-w, "DRY", text-generation-webui).
    """

    def __init__(self, params: SamplingParams, breakers: Breakers | None) -> None:
        self._multiplier = params.dry_multiplier
        self._base = params.dry_base
        self._allowed = params.dry_allowed_length
        self._breakers = breakers
        self._matches = SuffixMatches(params.dry_penalty_last_n)
        flat = self._base <= _FLAT_BASE
        self._largest = math.inf if flat else math.floor(_MAX_LOG / math.log(self._base))

    def __call__(self, logits: VocabularyLogits, tokens: Sequence[int]) -> None:
        """Lower the logits of the whole vocabulary, in place. `tokens`: the context."""
        window, lengths = self._matches.update(tokens)
        limit = len(window) if self._breakers is None else self._breakers.limit(window)
        if limit <= self._allowed:
            return
        places = np.flatnonzero(lengths[:-1] >= self._allowed)
        if not len(places):
            return
        ids, group = np.unique(window[places + 1], return_inverse=True)
        longest = np.zeros(len(ids), np.int32)
        np.maximum.at(longest, group, np.minimum(lengths[places], limit))
        exponents = np.minimum(longest - float(self._allowed), self._largest)
        penalties = np.minimum(self._multiplier * np.power(self._base, exponents), BOUND)
        logits.add(ids.astype(np.int64), -penalties.astype(np.float32))
