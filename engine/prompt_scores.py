"""How likely the model finds the tokens of one request's own prompt. Knows no batches and no blocks.

All tokens but the last are computed apart from other requests' rows, for each of them needs logits; those are
looked at a few rows at a time (`ModelRunner.scores`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.plan import Chunk
from engine.sampling.logprobs import PieceOf, told_logprob
from engine.sequence import Sequence
from engine.types import TokenLogprob


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Of each of n rows: the natural logarithm of its target's probability, and the k likeliest tokens.

    `own`: float32 [n]; `ids`: int64 [n, k]; `logprobs`: float32 [n, k], falling.
    """

    own: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]

    def split(self, rows: int) -> tuple["Scores", "Scores"]:
        """Those of the first so many rows, and those of the others."""
        first, others = slice(rows), slice(rows, None)
        return (
            Scores(self.own[first], self.ids[first], self.logprobs[first]),
            Scores(self.own[others], self.ids[others], self.logprobs[others]),
        )

    @property
    def sound(self) -> bool:
        """Whether they are numbers: not those of a damaged model."""
        return not bool(np.isnan(self.own).any())


class PromptScores:
    """Grows with the chunks of the prompt. One that was preempted, or has got another theta, begins again."""

    def __init__(self, sequence: Sequence, alternatives: int, piece: PieceOf) -> None:
        """`alternatives`: tokens told beside each one of the prompt. `piece`: the bytes of a token."""
        self._sequence = sequence
        self._piece: Callable[[int], bytes] = piece
        self.alternatives = alternatives
        self.told = self._first()
        # A cached token's row would be missing.
        sequence.anew = self.missing

    @property
    def missing(self) -> bool:
        """Whether tokens of the prompt are not scored yet."""
        return len(self.told) < self._sequence.prompt_length

    def part(self, chunk: Chunk) -> Chunk | None:
        """What of a chunk is to be computed with scores, all but the prompt's last token; None: nothing."""
        count = min(chunk.count, self._sequence.prompt_length - 1 - chunk.start)
        return replace(chunk, count=count) if self.missing and count > 0 else None

    def targets(self, chunk: Chunk) -> list[int]:
        """The tokens that follow those of a part, each the one that its row is asked about."""
        return self._sequence.tokens[chunk.start + 1 : chunk.start + 1 + chunk.count]

    def add(self, chunk: Chunk, scores: Scores) -> None:
        """Take in the scores of a part's targets, with as many alternatives as are told or more."""
        if chunk.start == 0:
            self.told = self._first()
        rows = zip(self.targets(chunk), scores.own.tolist(), scores.ids, scores.logprobs, strict=True)
        for token, own, ids, logprobs in rows:
            others = zip(ids[: self.alternatives].tolist(), logprobs.tolist(), strict=False)
            self.told.append(told_logprob(token, own, others, self._piece))
        self._sequence.anew = self.missing

    def _first(self) -> list[TokenLogprob]:
        token = self._sequence.tokens[0]
        return [TokenLogprob(token, self._piece(token), math.nan)]
