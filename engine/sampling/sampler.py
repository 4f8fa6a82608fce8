"""Draws one token for each sequence that has caught up."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from engine.kernels import Drawing, Draws
from engine.sampling.breakers import BreakerCompiler, Breakers
from engine.sampling.chain import uses_dry
from engine.sampling.device_logits import DeviceLogits
from engine.sampling.host_logits import HostLogits
from engine.sampling.phrase_bans import PhraseBans
from engine.sampling.row import NO_DRAW, Draw, NotFiniteError, Row
from engine.sampling.selection import Selection
from engine.sampling.sequence_sampler import SequenceSampler
from engine.sampling.validation import check_params
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex
from engine.types import GenerationRequest, SamplingParams

Drawer = Callable[[torch.Tensor, Draws], torch.Tensor]
"""`Kernels.draw`."""


class Sampler:
    """Samplers of all requests under way, by request id. For one thread, except `prepare`.

    `pieces` may be shared with others that search the vocabulary. `draw`: that of kernels that draw tokens.
    """

    def __init__(
        self, tokenizer: Tokenizer, pieces: PieceIndex | None = None, draw: Drawer | None = None
    ) -> None:
        self._draw = draw
        self._end_ids = tokenizer.end_ids
        self._piece = partial(tokenizer.piece, render_special=True)
        pieces = PieceIndex(tokenizer) if pieces is None else pieces
        self._breakers = BreakerCompiler(tokenizer, pieces)
        self._phrases = PhraseBans(tokenizer, pieces)
        self._sequences: dict[str, SequenceSampler] = {}
        self._scratch = np.empty(0, np.float32)

    def prepare(self, request: GenerationRequest) -> None:
        """Check a request and work out in advance what is costly. Safe in any thread.

        Raises `RequestError` for numbers that are none.
        """
        check_params(request.sampling)
        self._breakers_of(request.sampling)
        self._phrases.tokens(request.banned_phrases)

    def add(self, request: GenerationRequest) -> None:
        """Start the sampling state of a request."""
        self._sequences[request.request_id] = SequenceSampler(
            request,
            end_ids=self._end_ids,
            piece=self._piece,
            breakers=self._breakers_of(request.sampling),
            banned=self._phrases.tokens(request.banned_phrases),
        )

    def remove(self, request_id: str) -> None:
        """Forget a request."""
        del self._sequences[request_id]

    def seed(self, request_id: str) -> int:
        """The seed that the request runs with, its own or a drawn one."""
        return self._sequences[request_id].seed

    def sample(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[Draw]:
        """One token for each row of logits, float32 [n, vocab], which are left alone.

        `NO_DRAW` for a row that is no numbers: a damaged model's. A request may have one row only. No row
        depends on the others.
        """
        draws = self._drawn_in_place(logits, rows)
        rest = [place for place, draw in enumerate(draws) if draw is None]
        if rest:
            taken = logits if len(rest) == len(rows) else logits[rest]
            for place, draw in zip(rest, self._sample(taken, [rows[at] for at in rest]), strict=True):
                draws[place] = draw
        return [draw for draw in draws if draw is not None]

    def drawings(self, rows: Sequence[Row]) -> list[Drawing] | None:
        """How the kernels are to draw a token for each row, of logits that need not be known yet.

        None, and nothing has happened, where a row needs more than a draw by the kernels. What is drawn for
        a row may be no token: then put the drawing back, and `sample` that row.
        """
        if self._draw is None:
            return None
        drawings: list[Drawing] = []
        for row in rows:
            drawing = self._sequences[row.request_id].drawing(row)
            if drawing is None:
                for earlier, done in zip(rows, drawings, strict=False):
                    self.put_back(earlier.request_id, done)
                return None
            drawings.append(drawing)
        return drawings

    def put_back(self, request_id: str, drawing: Drawing) -> None:
        """Take the request's last drawing back, as if it had not been."""
        self._sequences[request_id].put_back(drawing)

    def _drawn_in_place(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[Draw | None]:
        """Tokens of the rows that need nothing but a draw, where the kernels make them beside the logits."""
        draws: list[Draw | None] = [None] * len(rows)
        if self._draw is None:
            return draws
        drawings = [self._sequences[row.request_id].drawing(row) for row in rows]
        places = [place for place, drawing in enumerate(drawings) if drawing is not None]
        if not places:
            return draws
        taken = logits if len(places) == len(rows) else logits[places]
        wanted = [drawing for drawing in drawings if drawing is not None]
        tokens = self._draw(taken, Draws.of(wanted, taken.device))
        for place, token in zip(places, tokens.tolist(), strict=True):
            drawing = drawings[place]
            if token >= 0:
                draws[place] = Draw(token)
            elif drawing is not None:  # every token is excluded: a last resort is not the kernels' business
                self.put_back(rows[place].request_id, drawing)
        return draws

    def _sample(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[Draw]:
        sequences = [self._sequences[row.request_id] for row in rows]
        raws = list(self._rows(logits))
        begun = list(map(_begun, sequences, raws, rows))
        return list(map(_drawn, sequences, raws, begun))

    def _rows(self, logits: torch.Tensor) -> Iterator[VocabularyLogits]:
        if not logits.is_cpu:
            yield from map(DeviceLogits.of, logits)
            return
        if len(self._scratch) != logits.shape[1]:
            self._scratch = np.empty(logits.shape[1], np.float32)
        for values in logits.numpy():
            yield HostLogits(values, self._scratch)

    def _breakers_of(self, params: SamplingParams) -> Breakers | None:
        if not uses_dry(params) or not params.dry_sequence_breakers:
            return None
        return self._breakers.compile(params.dry_sequence_breakers)


def _begun(sequence: SequenceSampler, raw: VocabularyLogits, row: Row) -> Callable[[], Selection] | None:
    """The work on a row under way; None for a row that is no numbers."""
    try:
        return sequence.begin(raw, row)
    except NotFiniteError:
        return None


def _drawn(sequence: SequenceSampler, raw: VocabularyLogits, select: Callable[[], Selection] | None) -> Draw:
    """What comes of it."""
    try:
        return NO_DRAW if select is None else sequence.draw(raw, select())
    except NotFiniteError:
        return NO_DRAW
