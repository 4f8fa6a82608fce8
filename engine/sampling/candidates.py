"""The tokens that are still in play for one draw."""

from dataclasses import dataclass

import torch

MAX_CANDIDATES = 5000
"""Only the so many most likely tokens enter the chain, as in KoboldCpp 1.76."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Token ids and their logits, by falling logit.

    `ids`: int64 [n]; `logits`: float32 [n]; n >= 1.
    """

    ids: torch.Tensor
    logits: torch.Tensor

    @classmethod
    def best(cls, logits: torch.Tensor, count: int) -> "Candidates":
        """The `count` largest of the logits of the whole vocabulary, float32 [vocab]."""
        values, ids = torch.topk(logits, min(count, logits.shape[0]))
        return cls(ids, values)

    def keep(self, count: int) -> "Candidates":
        """The first `count`, at least one."""
        count = max(1, count)
        return self if count >= len(self.ids) else Candidates(self.ids[:count], self.logits[:count])

    def probabilities(self) -> torch.Tensor:
        """Softmax over the candidates left, float64 [n]: sums are compared with limits like 0.999."""
        return torch.softmax(self.logits, 0, dtype=torch.float64)
