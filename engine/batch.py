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
class Pages:
    """Where the contexts of S sequences lie, page by page, and which rows of a batch are theirs.

    `tables`: int32 [S, width], the pages of each context in order; token i lies in slot
    `tables[s, i // page_size] * page_size + i % page_size`. `lengths`: int32 [S], tokens of the context, the
    rows' own included. `starts`: int32 [S + 1], the first row of each sequence, and the number of all rows;
    the rows of a sequence are the last tokens of its context. A sequence of length 0 gives its rows zeros.
    `rows`: the most that one sequence has.
    """

    tables: torch.Tensor
    lengths: torch.Tensor
    starts: torch.Tensor
    page_size: int
    rows: int

    @classmethod
    def of_one(cls, tokens: int, device: torch.device, page_size: int = 16) -> Self:
        """A whole text that lies in the first pages of a cache, all of it rows."""
        tables = torch.arange(-(-tokens // page_size), dtype=torch.int32, device=device)
        bounds = torch.tensor([0, tokens], dtype=torch.int32, device=device)
        return cls(tables[None], bounds[1:], bounds, page_size, tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens to compute, T rows in all.

    `token_ids`, `positions`, `slots`: integers [T]; a row's keys and values go to its slot, none to slot -1.
    Where the contexts lie say `spans` or, to kernels that want that, `pages`.
    `logit_rows`: int64 [n], the rows whose logits are wanted, in the order they are returned.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    spans: tuple[Span, ...]
    logit_rows: torch.Tensor
    pages: Pages | None = None

    @classmethod
    def of_one(cls, ids: torch.Tensor, wanted: range | None = None) -> Self:
        """A whole text, int64 [T], that is its own context; logits are wanted of these rows, or of all."""
        rows = torch.arange(len(ids), device=ids.device)
        logit_rows = rows if wanted is None else rows[wanted.start : wanted.stop]
        return cls(ids, rows, rows, (Span(0, len(ids), rows),), logit_rows)
