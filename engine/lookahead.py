"""A step whose tokens are on their way from the device, while the next one may be under way already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from engine.batch import Batch
from engine.batch_builder import BatchBuilder
from engine.kernels import Drawing
from engine.model_runner import ModelRunner
from engine.paged_batch_builder import PagedBatchBuilder
from engine.plan import Chunk, Plan
from engine.sampling import Row, Sampler
from engine.sequence import Sequence as EngineSequence
from engine.transfer import sent


class Arriving:
    """Tokens drawn on a device, int64 [n]: there at once, on the host when they have arrived."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens = tokens
        self._host = tokens
        self._arrival: torch.cuda.Event | None = None
        if tokens.is_cuda:
            # Only pinned memory is copied to while the host goes on.
            self._host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._host.copy_(tokens, non_blocking=True)
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record()

    def wait(self) -> list[int]:
        """The tokens; returns when they are known."""
        if self._arrival is not None:
            self._arrival.synchronize()
        tokens: list[int] = self._host.tolist()
        return tokens


@dataclass(slots=True)
class Flight:
    """A step that was launched: each chunk of `plan` has one row of `logits` and one drawing.

    `void`: ids of requests whose row is not to count, for it follows another token than the one that came.
    """

    plan: Plan
    logits: torch.Tensor
    drawings: list[Drawing]
    arriving: Arriving
    void: set[str] = field(default_factory=set)

    def rows(self) -> list[tuple[int, Chunk, Drawing]]:
        """What counts: rows, their chunks and drawings."""
        rows = enumerate(zip(self.plan, self.drawings, strict=True))
        return [(row, *pair) for row, pair in rows if pair[0].sequence.id not in self.void]


class Lookahead:
    """Launches steps and leaves them to go on. Knows nothing of queues and replies."""

    def __init__(
        self, batches: BatchBuilder | PagedBatchBuilder, runner: ModelRunner, sampler: Sampler
    ) -> None:
        self._batches = batches
        self._runner = runner
        self._sampler = sampler

    def launch(self, plan: Plan, batch: Batch, rows: Sequence[Row]) -> Flight | None:
        """Run a plan's batch and draw a token for each chunk, without waiting for it.

        None, and nothing has happened, where the host has a part in a draw.
        """
        drawings = self._sampler.drawings(rows)
        if drawings is None:
            return None
        logits, tokens = self._runner.draw(batch, drawings)
        return Flight(plan, logits, drawings, Arriving(tokens))

    def follow(
        self, flight: Flight, sequences: Mapping[int, EngineSequence], rows: Sequence[Row]
    ) -> Flight | None:
        """Launch the step that computes the tokens of these rows of a flight, which only the device knows.

        Each sequence needs a block for one more token than it knows.
        """
        # The token to come stands behind those that are known.
        ahead = [Chunk(sequence, len(sequence.tokens), 0, draft=(0,)) for sequence in sequences.values()]
        batch = self._batches.build(ahead, logit_rows=range(len(ahead)))
        tokens = flight.arriving.tokens
        if len(sequences) < len(tokens):
            tokens = tokens[sent(torch.tensor(list(sequences)), tokens.device)]
        tokens = tokens.clamp(min=0)
        batch.token_ids[: len(ahead)] = tokens.to(batch.token_ids.dtype)
        plan = [Chunk(sequence, len(sequence.tokens), 1) for sequence in sequences.values()]
        return self.launch(plan, batch, rows)

    def drop(self, flight: Flight | None, sequence: EngineSequence) -> None:
        """Have a sequence no part in a step, if it has one, and its random number be the next one again."""
        for _, chunk, drawing in [] if flight is None else flight.rows():
            if chunk.sequence is sequence:
                self._sampler.put_back(sequence.id, drawing)
        if flight is not None:
            flight.void.add(sequence.id)
