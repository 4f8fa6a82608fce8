"""Penalties for tokens that the context already holds."""

from collections.abc import Sequence

import torch

from engine.sampling.candidates import Candidates
from engine.types import SamplingParams


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
        self._new = params.rep_pen
        slope = params.rep_pen_slope
        weakened = params.rep_pen > 1 and 0 < slope < 1
        self._old = 1 + (params.rep_pen - 1) * slope if weakened else params.rep_pen
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty

    def on_vocabulary(self, logits: torch.Tensor, context: Sequence[int]) -> None:
        """Apply to the logits of the whole vocabulary, float32 [vocab], in place."""
        ids, factors, subtract = self._table(context, logits.device)
        logits[ids] = _penalised(logits[ids], factors, subtract)

    def on_candidates(self, candidates: Candidates, context: Sequence[int]) -> Candidates:
        """Apply to candidates, and sort them again."""
        ids, factors, subtract = self._table(context, candidates.ids.device)
        if not len(ids):
            return candidates
        place = torch.searchsorted(ids, candidates.ids).clamp_(max=len(ids) - 1)
        seen = ids[place] == candidates.ids
        penalised = _penalised(candidates.logits, factors[place], subtract[place])
        logits, order = torch.where(seen, penalised, candidates.logits).sort(descending=True, stable=True)
        return Candidates(candidates.ids[order], logits)

    def _table(
        self, context: Sequence[int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sorted ids seen (int64 [n]), their factor and their subtrahend (float32 [n])."""
        window = context[-self._range :]
        old = len(window) - len(window) // 2
        counts: dict[int, int] = {}
        for token in window:
            counts[token] = counts.get(token, 0) + 1
        newer = set(window[old:])
        ids = sorted(counts)
        factors = [self._new if token in newer else self._old for token in ids]
        subtract = [self._presence + self._frequency * counts[token] for token in ids]
        return (
            torch.tensor(ids, dtype=torch.int64, device=device),
            torch.tensor(factors, dtype=torch.float32, device=device),
            torch.tensor(subtract, dtype=torch.float32, device=device),
        )


def _penalised(logits: torch.Tensor, factors: torch.Tensor, subtract: torch.Tensor) -> torch.Tensor:
    return torch.where(logits <= 0, logits * factors, logits / factors) - subtract
