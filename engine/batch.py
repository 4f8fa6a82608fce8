"""What one run of the model computes: tokens of several sequences, laid end to end."""

from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True, slots=True)
class Span:
    """The rows of one sequence in a batch, and where its context lies.

    Rows `start` to `stop` are the last `stop - start` tokens of the context; `context_slots`, int64
    [context], are the KV-cache slots of all its tokens, the rows' own included.
    """

    start: int
    stop: int
    context_slots: torch.Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens to compute, T rows in all.

    `token_ids`, `positions`, `slots`: int64 [T]; a row's keys and values go to its slot.
    `logit_rows`: int64 [n], the rows whose logits are wanted, in the order they are returned.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    spans: tuple[Span, ...]
    logit_rows: torch.Tensor

    @classmethod
    def of_one(cls, ids: torch.Tensor, wanted: range | None = None) -> Self:
        """A whole text, int64 [T], that is its own context; logits are wanted of these rows, or of all."""
        rows = torch.arange(len(ids), device=ids.device)
        logit_rows = rows if wanted is None else rows[wanted.start : wanted.stop]
        return cls(ids, rows, rows, (Span(0, len(ids), rows),), logit_rows)
