"""Draws one token for each sequence that has caught up."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from engine.sampling.breakers import BreakerCompiler, Breakers
from engine.sampling.chain import uses_dry
from engine.sampling.device_logits import DeviceLogits
from engine.sampling.host_logits import HostLogits
from engine.sampling.phrase_bans import PhraseBans
from engine.sampling.row import Draw, Row
from engine.sampling.sequence_sampler import SequenceSampler
from engine.sampling.validation import check_params
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex
from engine.types import GenerationRequest, SamplingParams


class Sampler:
    """Samplers of all requests under way, by request id. For one thread, except `prepare`.

    `pieces` may be shared with others that search the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: PieceIndex | None = None) -> None:
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

        A request may have one row only. No row depends on the others.
        """
        sequences = [self._sequences[row.request_id] for row in rows]
        raws = list(self._rows(logits))
        begun = [sequence.begin(raw, row) for sequence, raw, row in zip(sequences, raws, rows, strict=True)]
        return [
            sequence.draw(raw, select()) for sequence, raw, select in zip(sequences, raws, begun, strict=True)
        ]

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
