"""Decode steps of the model, recorded once for each size of a batch and played back since.

A step of a large model is some hundred launches, each of which takes the processor about as long as the card
needs to carry it out; a recorded graph is one. What is recorded are addresses, so that inputs are copied to
where the recording reads them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from engine.batch import Batch, Pages
from engine.kernels import Drawing, Draws
from engine.kv_cache import KVCache
from engine.models import Model
from engine.native.shortlist import MOST_WANTED, Tail

GRAPH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Rows of a batch that there are graphs for."""

Results = tuple[torch.Tensor, ...]
Work = Callable[[], Results]
Recorded = tuple[Callable[[], None], Results]
"""What repeats some work, and the tensors that then hold its results."""
Recorder = Callable[[Work], Recorded]
"""Carries out work once and keeps it."""


@dataclass(frozen=True, slots=True)
class _Recording:
    """One step without and one with the drawing of tokens, and where both read what to compute."""

    inputs: Batch
    draws: Draws
    run: Recorded
    draw: Recorded


class CudaGraphs:
    """Recordings of one model with one cache. Theta counts in them as it did when they were made."""

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        *,
        page_size: int,
        pages: int,
        most: int,
        recorder: Recorder | None = None,
    ) -> None:
        """`pages`: of the longest context. `most`: rows of a batch. `recorder`: None for that of CUDA."""
        self._model = model
        self._cache = cache
        self._page_size = page_size
        self._pages = pages
        self._most = most
        self._recorder = cuda_recorder() if recorder is None else recorder
        self._recordings: dict[int, _Recording] = {}

    def record(self) -> None:
        """Make the recordings, or make them anew, the largest first, whose memory all others share."""
        self._recordings.clear()
        for size in sorted(self._sizes(), reverse=True):
            inputs, draws = self._inputs(size), self._draws(size)
            run, draw = partial(self._run, inputs), partial(self._run, inputs, draws)
            self._recordings[size] = _Recording(inputs, draws, self._recorder(run), self._recorder(draw))

    def run(self, batch: Batch) -> torch.Tensor | None:
        """Logits float32 [n, vocab] of the wanted rows; None: there is no recording for such a batch.

        There are some for batches of sequences with one row each.
        """
        recording = self._told(batch)
        if recording is None:
            return None
        play, (logits,) = recording.run
        play()
        return logits[batch.logit_rows]

    def draw(self, batch: Batch, drawings: Sequence[Drawing]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The same, and a token for each of these rows, int64 [n], as `Kernels.draw` gives it."""
        recording = self._told(batch)
        if recording is None:
            return None
        table = recording.draws.table
        table.index_copy_(1, batch.logit_rows, Draws.of(drawings, table.device).table)
        play, (logits, tokens) = recording.draw
        play()
        return logits[batch.logit_rows], tokens[batch.logit_rows]

    def _run(self, inputs: Batch, draws: Draws | None = None) -> Results:
        logits = self._model(inputs, self._cache)
        return (logits,) if draws is None else (logits, self._model.kernels.draw(logits, draws))

    def _told(self, batch: Batch) -> _Recording | None:
        """The recording for a batch, told what to compute."""
        pages = batch.pages
        rows = len(batch.token_ids)
        recording = self._recordings.get(rows)
        if recording is None or pages is None or len(pages.lengths) != rows:
            return None
        inputs = recording.inputs
        assert inputs.pages is not None, "recordings have pages"
        for name in ("token_ids", "positions", "slots"):
            getattr(inputs, name).copy_(getattr(batch, name), non_blocking=True)
        inputs.pages.lengths.copy_(pages.lengths, non_blocking=True)
        inputs.pages.tables[:, : pages.tables.shape[1]].copy_(pages.tables, non_blocking=True)
        return recording

    def _draws(self, size: int) -> Draws:
        """Greedy ones."""
        greedy = Draws.of([Drawing(1, Tail(), 0.0)] * size, self._cache.keys.device)
        return Draws(greedy.table, MOST_WANTED)

    def _sizes(self) -> list[int]:
        """Those that hold all batches of up to `most` rows, as far as there are such sizes."""
        smaller = [size for size in GRAPH_SIZES if size < self._most]
        return [*smaller, *GRAPH_SIZES[len(smaller) : len(smaller) + 1]]

    def _inputs(self, size: int) -> Batch:
        """A batch of empty sequences, one row each, in memory that stays."""
        device = self._cache.keys.device

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        starts = torch.arange(size + 1, dtype=torch.int32, device=device)
        pages = Pages(zeros(size, self._pages), zeros(size), starts, self._page_size, rows=1)
        rows = torch.arange(size, device=device)
        return Batch(zeros(size), zeros(size), zeros(size) - 1, (), rows, pages)


def cuda_recorder() -> Recorder:
    """Records with torch's CUDA graphs, all in one pool of memory."""
    pool = torch.cuda.graph_pool_handle()

    def record(work: Work) -> Recorded:
        # The first runs compile and choose; what they do must not be recorded.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            results = work()
        return graph.replay, results

    return record
