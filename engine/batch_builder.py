"""Turns a plan of the scheduler into the tensors of a batch."""

from collections.abc import Iterable

import torch

from engine.batch import Batch, Span
from engine.scheduler import Plan


class BatchBuilder:
    """Lays the chunks of a plan end to end, and says where in the cache their contexts lie."""

    def __init__(self, block_size: int, device: torch.device) -> None:
        self._device = device
        self._block_size = block_size
        self._offsets = torch.arange(block_size)

    def build(self, plan: Plan, *, logit_rows: Iterable[int] | None = None) -> Batch:
        """The batch of a plan.

        `logit_rows`: rows whose logits are wanted; None: the last row of each chunk that completes its
        sequence, in the plan's order.
        """
        tokens: list[int] = []
        positions: list[torch.Tensor] = []
        spans: list[Span] = []
        wanted: list[int] = []
        for chunk in plan:
            end = chunk.start + chunk.count
            first = len(tokens)
            tokens += chunk.sequence.tokens[chunk.start : end]
            positions.append(torch.arange(chunk.start, end))
            slots = self._slots(chunk.sequence.block_table, end)
            spans.append(Span(first, len(tokens), slots.to(self._device)))
            if chunk.completes:
                wanted.append(len(tokens) - 1)
        rows = torch.tensor(wanted if logit_rows is None else list(logit_rows), dtype=torch.int64)
        return Batch(
            token_ids=torch.tensor(tokens, dtype=torch.int64, device=self._device),
            positions=torch.cat(positions).to(self._device),
            slots=torch.cat([span.context_slots[span.start - span.stop :] for span in spans]),
            spans=tuple(spans),
            logit_rows=rows.to(self._device),
        )

    def _slots(self, block_table: list[int], tokens: int) -> torch.Tensor:
        """Cache slots of the first so many tokens of a sequence, int64 [tokens]."""
        blocks = torch.tensor(block_table, dtype=torch.int64)
        return (blocks[:, None] * self._block_size + self._offsets).flatten()[:tokens]
