"""Turns a plan of the scheduler into the tensors of a batch."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import Batch, Span
from engine.cuda_graphs import GRAPH_SIZES
from engine.kernels import Kernels
from engine.paged_batch_builder import PagedBatchBuilder
from engine.plan import Plan

_Integers = npt.NDArray[np.int64]


class BatchBuilder:
    """Lays the chunks of a plan end to end, and says where in the cache their contexts lie."""

    def __init__(self, block_size: int, device: torch.device) -> None:
        self._device = device
        self._block_size = block_size
        self._offsets = np.arange(block_size)

    def build(self, plan: Plan, *, logit_rows: Iterable[int] | None = None) -> Batch:
        """The batch of a plan.

        `logit_rows`: rows whose logits are wanted; None: the last row of each chunk that completes its
        sequence, and behind it those of its draft, in the plan's order.
        """
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[_Integers] = []
        spans: list[Span] = []
        wanted: list[int] = []
        for chunk in plan:
            known = chunk.start + chunk.count
            end = known + len(chunk.draft)
            first = len(tokens)
            tokens += chunk.sequence.tokens[chunk.start : known]
            tokens += chunk.draft
            positions += range(chunk.start, end)
            context = self._slots(chunk.sequence.block_table, end)
            slots.append(context[chunk.start :])
            spans.append(Span(first, len(tokens), self._tensor(context)))
            if chunk.completes:
                wanted += range(len(tokens) - len(chunk.draft) - 1, len(tokens))
        return Batch(
            token_ids=self._tensor(np.array(tokens)),
            positions=self._tensor(np.array(positions)),
            slots=self._tensor(slots[0] if len(slots) == 1 else np.concatenate(slots)),
            spans=tuple(spans),
            logit_rows=self._tensor(
                np.array(wanted if logit_rows is None else list(logit_rows), dtype=np.int64)
            ),
        )

    def _slots(self, block_table: list[int], tokens: int) -> _Integers:
        """Cache slots of the first so many tokens of a sequence, int64 [tokens]."""
        blocks = np.array(block_table)
        return (blocks[:, None] * self._block_size + self._offsets).ravel()[:tokens]

    def _tensor(self, values: _Integers) -> torch.Tensor:
        # numpy makes small arrays in a third of torch's time, which counts between steps of a small model.
        tensor = torch.from_numpy(values)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)


def batch_builder(kernels: Kernels, block_size: int) -> BatchBuilder | PagedBatchBuilder:
    """One that makes batches as the kernels want them."""
    if kernels.paged:
        return PagedBatchBuilder(block_size, kernels.device, GRAPH_SIZES)
    return BatchBuilder(block_size, kernels.device)
