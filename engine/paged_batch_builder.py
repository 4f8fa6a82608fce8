"""Turns a plan of the scheduler into a batch for an accelerator: page tables, and one copy for all of it."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import Batch, Pages
from engine.plan import Plan
from engine.transfer import sent_together

_Integers = npt.NDArray[np.int32]


class PagedBatchBuilder:
    """Lays the chunks of a plan end to end, with the blocks of their contexts as pages.

    A batch of sequences that compute one token each is filled up to a size for which there may be a recorded
    graph: with rows of empty sequences, which write nothing and whose logits nobody wants.
    """

    def __init__(self, block_size: int, device: torch.device, sizes: Sequence[int] = ()) -> None:
        """`sizes`: rows of batches that are filled up, rising."""
        self._block_size = block_size
        self._device = device
        self._sizes = sizes

    def build(self, plan: Plan, *, logit_rows: Iterable[int] | None = None) -> Batch:
        """The batch of a plan.

        `logit_rows`: rows whose logits are wanted; None: the last row of each chunk that completes its
        sequence, and behind it those of its draft, in the plan's order.
        """
        tokens: list[int] = []
        positions: list[int] = []
        starts, lengths = [0], list[int]()
        wanted: list[int] = []
        for chunk in plan:
            known = chunk.start + chunk.count
            end = known + len(chunk.draft)
            tokens += chunk.sequence.tokens[chunk.start : known]
            tokens += chunk.draft
            positions += range(chunk.start, end)
            lengths.append(end)
            starts.append(len(tokens))
            if chunk.completes:
                wanted += range(len(tokens) - len(chunk.draft) - 1, len(tokens))
        empty = self._missing(len(plan)) if len(tokens) == len(plan) else 0
        tables = self._tables(plan, lengths, empty)
        own = np.repeat(np.arange(len(plan)), np.diff(starts))
        at = np.array(positions, np.int32)
        slots = tables[own, at // self._block_size] * self._block_size + at % self._block_size
        last = starts[-1]
        parts = (
            np.array(tokens + [0] * empty, np.int32),
            np.pad(at, (0, empty)),
            np.pad(slots, (0, empty), constant_values=-1),
            np.array(wanted if logit_rows is None else list(logit_rows), np.int32),
            tables,
            np.array(lengths + [0] * empty, np.int32),
            np.array([*starts, *range(last + 1, last + empty + 1)], np.int32),
        )
        ids, places, targets, rows, own_pages, contexts, firsts = sent_together(parts, self._device)
        pages = Pages(own_pages, contexts, firsts, self._block_size, int(np.diff(starts).max()))
        return Batch(ids, places, targets, (), rows.long(), pages)

    def _missing(self, count: int) -> int:
        """Rows up to the next size; 0 beyond the largest."""
        place = bisect_left(self._sizes, count)
        return self._sizes[place] - count if place < len(self._sizes) else 0

    def _tables(self, plan: Plan, lengths: list[int], empty: int) -> _Integers:
        """The pages of all contexts, int32 [sequences, the most pages of one]; 0 where there is none."""
        counts = [-(-length // self._block_size) for length in lengths]
        tables = np.zeros((len(plan) + empty, max(counts)), np.int32)
        for row, chunk, count in zip(tables, plan, counts, strict=False):
            row[:count] = chunk.sequence.block_table[:count]
        return tables
