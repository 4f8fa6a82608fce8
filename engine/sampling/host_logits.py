"""A row of logits in the processor's memory."""

import numpy as np
import numpy.typing as npt

from engine.native.shortlist import MOST_WANTED, Tail, draw, shortlist
from engine.sampling.bitmask import unpack
from engine.sampling.candidates import BOUND, LEAST, Candidates, Ids, Logits
from engine.sampling.row import NotFiniteError
from engine.sampling.vocabulary_logits import Shortlist, VocabularyLogits

_LOWEST = float(np.finfo(np.float32).min)


class HostLogits(VocabularyLogits):
    """In numpy, whose calls cost less than torch's for a single row.

    `scratch`, float32 [vocab], is borrowed for a copy and for passing results: a new array of this size
    costs more time than what is done with it. `checked`: the values are known to be those of a sound model.
    """

    def __init__(self, values: Logits, scratch: Logits, *, checked: bool = False) -> None:
        self._raw = values
        self._scratch = scratch
        self._checked = checked

    @property
    def _values(self) -> Logits:
        """The values; raises `NotFiniteError` for those of a damaged model."""
        if not self._checked:
            if not -np.inf < self._raw.max(initial=-np.inf) <= BOUND:
                raise NotFiniteError
            self._checked = True
        return self._raw

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self._raw)

    def copy(self) -> "HostLogits":
        """In the scratch memory."""
        np.copyto(self._scratch, self._values)
        return HostLogits(self._scratch, self._scratch, checked=True)

    def add(self, ids: Ids, amounts: Logits) -> None:
        """See `VocabularyLogits.add`."""
        self._values[ids] += amounts

    def penalise(self, ids: Ids, factors: Logits, subtract: Logits) -> None:
        """See `VocabularyLogits.penalise`."""
        before = self._values[ids]
        after = penalised(before, factors, subtract).clip(LEAST, BOUND)
        self._values[ids] = np.where(before > -np.inf, after, before)

    def exclude(self, ids: Ids) -> None:
        """See `VocabularyLogits.exclude`."""
        self._values[ids] = -np.inf

    def restrict(self, allowed: npt.NDArray[np.uint32]) -> None:
        """See `VocabularyLogits.restrict`."""
        np.copyto(self._values, -np.inf, where=unpack(allowed, len(self._values)) == 0)

    def best(self, count: int, within: float = np.inf) -> Shortlist:
        """See `VocabularyLogits.best`; looked for at once."""
        found = self._best(count, within)
        return lambda: found

    def draw(self, count: int, tail: Tail, u: float) -> tuple[Candidates, int] | None:
        """See `VocabularyLogits.draw`; by the compiled library, in one call."""
        drawn = draw(self._raw, BOUND, count, tail, u)
        return None if drawn is None else (Candidates(drawn[0], drawn[1]), drawn[2])

    def take(self, ids: Ids) -> Logits:
        """See `VocabularyLogits.take`."""
        return self._values[ids]

    def log_total(self) -> float:
        """See `VocabularyLogits.log_total`."""
        highest = self._values.max()
        odds = np.exp(np.subtract(self._values, highest, out=self._scratch), out=self._scratch)
        return float(highest) + float(np.log(odds.sum(dtype=np.float64)))

    def _best(self, count: int, within: float) -> Candidates | None:
        near = within < np.inf
        if count <= MOST_WANTED and not near:
            # One pass over memory that is cold after the model's work, in which the check is included.
            listed = shortlist(self._raw, BOUND, count)
            if listed is not None and len(listed[0]):
                return Candidates(*listed)
        values = self._values
        if count == 1:
            place = int(values.argmax())
            best = values[place : place + 1]
            return Candidates(np.array([place]), best.copy()) if best[0] > -np.inf else None
        floor = float(values.max() - np.float32(within)) if near else _lower_bound(values, count)
        ids = np.flatnonzero(values >= max(floor, _LOWEST))
        if not len(ids):
            return None
        found = values[ids]
        if len(ids) > 2 * count:
            # equal logits, or a wide `within`: what comes in is sorted, and that is not cheap
            enough = found >= np.partition(found, len(found) - count)[len(found) - count]
            ids, found = ids[enough], found[enough]
        return Candidates.ranked(ids, found).keep(count)


def penalised(logits: Logits, factors: Logits, subtract: Logits) -> Logits:
    """(l * factor if l <= 0 else l / factor) - subtract for each: float32 [n]."""
    return np.where(logits <= 0, logits * factors, logits / factors) - subtract


def _lower_bound(values: Logits, count: int) -> float:
    """No more than the `count`-th largest of the values, and not much less."""
    # Of groups of values only the largest is looked at: the count-th largest of those has `count` values
    # at or above it, with or without the few values that fill no group. Eight groups for each one wanted
    # make it nearly the count-th of all.
    size = max(1, len(values) // (8 * count))
    groups = len(values) // size
    if groups <= count:
        return _LOWEST
    highest = values[: groups * size].reshape(size, groups).max(0) if size > 1 else values
    return float(np.partition(highest, groups - count)[groups - count])
