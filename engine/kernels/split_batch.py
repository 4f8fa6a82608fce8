"""A batch as the kernels of one stage of a split model want it."""

from dataclasses import replace

import numpy as np
import torch

from engine.batch import Batch, Pages, Span
from engine.kernels.interface import Kernels
from engine.transfer import sent_together


def batch_for(batch: Batch, kernels: Kernels, page_size: int) -> Batch:
    """What `Kernels.forward` reads of a batch, on the device of the kernels, as pages where they want these.

    `batch`: on the processor, with spans that have all rows in order. Their contexts lie in whole pages of
    `page_size` slots. Token ids and wanted rows stay where they are: stages have no use for them.
    """
    if kernels.paged:
        return _with_pages(batch, kernels.device, page_size)
    if kernels.device.type == "cpu":
        return batch
    spans = (Span(span.start, span.stop, span.context_slots.to(kernels.device)) for span in batch.spans)
    return replace(
        batch,
        positions=batch.positions.to(kernels.device),
        slots=batch.slots.to(kernels.device),
        spans=tuple(spans),
    )


def _with_pages(batch: Batch, device: torch.device, page_size: int) -> Batch:
    """Everything is int32 and comes to the device in one copy, as `PagedBatchBuilder` does it."""
    spans = batch.spans
    pages = [span.context_slots.numpy()[::page_size] // page_size for span in spans]
    tables = np.zeros((len(spans), max(map(len, pages))), np.int32)
    for row, own in zip(tables, pages, strict=True):
        row[: len(own)] = own
    parts = (
        batch.positions.numpy().astype(np.int32),
        batch.slots.numpy().astype(np.int32),
        tables,
        np.array([len(span.context_slots) for span in spans], np.int32),
        np.array([*(span.start for span in spans), spans[-1].stop], np.int32),
    )
    positions, slots, own_tables, lengths, starts = sent_together(parts, device)
    most = max(span.stop - span.start for span in spans)
    return replace(
        batch,
        positions=positions,
        slots=slots,
        spans=(),
        pages=Pages(own_tables, lengths, starts, page_size, most),
    )
