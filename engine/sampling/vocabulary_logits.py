"""One row of the model's logits, wherever it lies."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt

from engine.native.shortlist import Tail
from engine.sampling.candidates import Candidates, Ids, Logits

Shortlist = Callable[[], Candidates | None]
"""Waits for the device and gives the candidates; None if every token is excluded."""


class VocabularyLogits(ABC):
    """Logits of the whole vocabulary, float32 [vocab], which change in place on their device.

    An excluded token has minus infinity, which nothing brings back. All others are finite and at most
    `BOUND`: where a model's row holds NaN or infinity, or nothing but minus infinity, the first method that
    would give a result raises `NotFiniteError`.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many tokens there are."""

    @abstractmethod
    def copy(self) -> Self:
        """The same logits, to be changed while these stay. At most one copy of a row is in use."""

    @abstractmethod
    def add(self, ids: Ids, amounts: Logits) -> None:
        """Add to the logits of `ids`, all different, int64 [n], what `amounts`, float32 [n], says."""

    @abstractmethod
    def penalise(self, ids: Ids, factors: Logits, subtract: Logits) -> None:
        """l <- (l * factor if l <= 0 else l / factor) - subtract, for `ids`, all different.

        `ids`: int64 [n]; `factors`, float32 [n], positive; `subtract`, float32 [n].
        """

    @abstractmethod
    def exclude(self, ids: Ids) -> None:
        """Never these: int64 [n]."""

    @abstractmethod
    def restrict(self, allowed: npt.NDArray[np.uint32]) -> None:
        """Exclude each token i whose bit i % 32 of `allowed[i // 32]` is 0 or missing."""

    @abstractmethod
    def best(self, count: int, within: float = np.inf) -> Shortlist:
        """The `count` >= 1 largest, of which only those at most `within` below the largest."""

    def draw(self, count: int, tail: Tail, u: float) -> tuple[Candidates, int] | None:
        """The `count` best behind the tail, and which of them the random number u in [0, 1) draws.

        None where that cannot be had at once: then the chain goes step by step.
        """
        return None

    @abstractmethod
    def take(self, ids: Ids) -> Logits:
        """The logits of `ids`, int64 [n]: float32 [n]."""

    @abstractmethod
    def log_total(self) -> float:
        """ln of the sum of exp(logit): what to subtract from a logit for the logarithm of its probability.

        For a model's row, not for a copy.
        """
