"""Mirostat: the number of candidates follows how surprising the last tokens were."""

import numpy as np

from engine.sampling.candidates import Candidates
from engine.types import SamplingParams

_NEIGHBOURS = 99
"""Pairs of neighbouring ranks from which Zipf's exponent is estimated."""


class Mirostat:
    """Version 1 or 2 (Basu et al. 2021, arXiv 2007.14966, algorithms 1 and 2, as in KoboldCpp 1.76).

    `mu` is the most surprise, in bits, that the next token may bring; it starts at twice the target
    `mirostat_tau` and moves by `mirostat_eta` times the miss after each token.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._version = params.mirostat
        self._tau = params.mirostat_tau
        self._eta = params.mirostat_eta
        self.mu = 2 * params.mirostat_tau

    def narrow(self, candidates: Candidates, vocab_size: int) -> Candidates:
        """Keep the candidates that are not too surprising, at least one."""
        if self._version == 1:
            return candidates.keep(self._count(candidates, vocab_size))
        surprise = -candidates.log_probabilities() / np.log(2)
        return candidates.keep(int(np.count_nonzero(~(surprise > self.mu))))

    def learn(self, candidates: Candidates, index: int) -> None:
        """Take notice of the candidate that was drawn from those kept."""
        surprise = -float(candidates.log_probabilities()[index]) / np.log(2)
        self.mu -= self._eta * (surprise - self._tau)

    def _count(self, candidates: Candidates, vocab_size: int) -> int:
        """How many tokens of a Zipf distribution with the exponent found keep the surprise near mu."""
        everything = len(candidates.ids)
        # ln(p_i / p_i+1) is the difference of the logits
        steps = -np.diff(candidates.logits[: _NEIGHBOURS + 1].astype(np.float64))
        if not len(steps):
            return everything
        ranks = np.arange(1, len(steps) + 1)
        spacing = np.log((ranks + 1) / ranks)
        exponent = (spacing @ steps) / (spacing @ spacing)
        excess = exponent - 1
        with np.errstate(all="ignore"):
            share = np.exp2(np.float64(self.mu)) * excess / (1 - np.float64(vocab_size) ** -excess)
            count = share ** (1 / exponent)
        # Flat logits have no exponent, and an exponent of just 1 no excess: then nothing is cut.
        return int(count) if 1 <= count < everything else everything
