"""Penalties for tokens that the context already holds."""

from collections.abc import Sequence

import numpy as np

from engine.sampling.candidates import BOUND, Candidates, Ids, Logits, bounded
from engine.sampling.host_logits import penalised
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.types import SamplingParams

_SMALLEST = 1e-30
"""A factor is at least this, for a division by it to stay finite."""


class Penalties:
    """Repetition, presence and frequency penalty of one request.

    Over the last `rep_pen_range` tokens (at least one), of which the older half, those at index i with
    2 i < length, has the weaker penalty 1 + (rep_pen - 1) * slope. For each token seen:
    l <- l * r if l <= 0 else l / r, then l <- l - presence - frequency * occurrences. A token in both
    halves has the penalty of the newer.

    Source: KoboldCpp 1.76, except that a context shorter than the range is not filled up with token 0,
    and that the frequency penalty is OpenAI's.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._range = max(1, params.rep_pen_range)
        self._new = params.rep_pen if params.rep_pen > 0 else 1.0
        slope = params.rep_pen_slope
        weakened = self._new > 1 and 0 < slope < 1
        self._old = 1 + (self._new - 1) * slope if weakened else self._new
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty

    @property
    def neutral(self) -> bool:
        """Whether nothing would change."""
        return self._new == 1 and self._presence == 0 and self._frequency == 0

    def on_vocabulary(self, logits: VocabularyLogits, tokens: Sequence[int]) -> None:
        """Apply to the logits of the whole vocabulary, in place. `tokens`: the context."""
        logits.penalise(*self._table(tokens))

    def on_candidates(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """Apply to candidates, and sort them again. `tokens`: the context."""
        ids, factors, subtract = self._table(tokens)
        if not len(ids):
            return candidates
        place = np.searchsorted(ids, candidates.ids).clip(max=len(ids) - 1)
        changed = penalised(candidates.logits, factors[place], subtract[place])
        logits = np.where(ids[place] == candidates.ids, changed, candidates.logits)
        return Candidates.ranked(candidates.ids, bounded(logits))

    def _table(self, tokens: Sequence[int]) -> tuple[Ids, Logits, Logits]:
        """Rising ids seen (int64 [n]), their factor and their subtrahend (float32 [n])."""
        window = np.array(tokens[-self._range :], dtype=np.int32)
        ids, counts = np.unique(window, return_counts=True)
        factors = np.full(len(ids), self._old)
        newer = window[len(window) - len(window) // 2 :]
        if self._new != self._old:
            factors[np.searchsorted(ids, newer)] = self._new
        subtract = self._presence + self._frequency * counts
        return (
            ids.astype(np.int64),
            np.clip(factors, _SMALLEST, BOUND).astype(np.float32),
            np.clip(subtract, -BOUND, BOUND).astype(np.float32),
        )
