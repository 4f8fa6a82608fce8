"""A row of logits in an accelerator's memory."""

import numpy as np
import numpy.typing as npt
import torch

from engine.sampling.candidates import BOUND, LEAST, Candidates, Ids, Logits
from engine.sampling.row import NotFiniteError
from engine.sampling.vocabulary_logits import Shortlist, VocabularyLogits


class DeviceLogits(VocabularyLogits):
    """In torch, on whatever device. Nothing waits for the device before a result is asked for."""

    def __init__(self, values: torch.Tensor, highest: torch.Tensor) -> None:
        """`highest`: the largest value of the model's own row, NaN if it holds one."""
        self._values = values
        self._highest = highest

    @classmethod
    def of(cls, values: torch.Tensor) -> "DeviceLogits":
        """A model's row, float32 [vocab], which is left alone as long as a copy is changed in its place."""
        return cls(values, values.amax())

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self._values)

    def copy(self) -> "DeviceLogits":
        """In memory of its own."""
        return DeviceLogits(self._values.clone(), self._highest)

    def add(self, ids: Ids, amounts: Logits) -> None:
        """See `VocabularyLogits.add`."""
        self._values.index_add_(0, self._moved(ids), self._moved(amounts))

    def penalise(self, ids: Ids, factors: Logits, subtract: Logits) -> None:
        """See `VocabularyLogits.penalise`."""
        places, factor = self._moved(ids), self._moved(factors)
        logits = self._values[places]
        changed = torch.where(logits <= 0, logits * factor, logits / factor) - self._moved(subtract)
        self._values[places] = torch.where(logits > -torch.inf, changed.clamp_(LEAST, BOUND), logits)

    def exclude(self, ids: Ids) -> None:
        """See `VocabularyLogits.exclude`."""
        self._values.index_fill_(0, self._moved(ids), -torch.inf)

    def restrict(self, allowed: npt.NDArray[np.uint32]) -> None:
        """See `VocabularyLogits.restrict`."""
        # torch has few operations for unsigned words; the bits of signed ones are the same
        words = self._moved(allowed.view(np.int32))
        bits = torch.arange(32, dtype=torch.int32, device=words.device)
        kept = (words[:, None] >> bits & 1).flatten()[: len(self._values)].bool()
        self._values[: len(kept)].masked_fill_(~kept, -torch.inf)
        self._values[len(kept) :] = -torch.inf

    def best(self, count: int, within: float = np.inf) -> Shortlist:
        """See `VocabularyLogits.best`; queued at once."""
        # One integer for both, as in `Candidates.ranked`: of equal logits the lower ids come first.
        rank = _turned((self._values + 0.0).view(torch.int32))
        ids = torch.arange(len(rank), device=rank.device)
        keys = torch.topk(rank.long() << 32 | 0x7FFFFFFF - ids, min(count, len(rank))).values

        def shortlist() -> Candidates | None:
            self._check()
            found = _turned((keys >> 32).int()).view(torch.float32).cpu().numpy()
            listed = (0x7FFFFFFF - (keys & 0x7FFFFFFF)).cpu().numpy()
            kept = found >= max(found[0] - np.float32(within), np.finfo(np.float32).min)
            return Candidates(listed[kept], found[kept]) if kept.any() else None

        return shortlist

    def take(self, ids: Ids) -> Logits:
        """See `VocabularyLogits.take`; waits for the device."""
        self._check()
        taken: Logits = self._values[self._moved(ids)].cpu().numpy()
        return taken

    def log_total(self) -> float:
        """See `VocabularyLogits.log_total`; waits for the device."""
        self._check()
        return float(torch.logsumexp(self._values.double(), 0))

    def _check(self) -> None:
        """Raise `NotFiniteError` for values of a damaged model; waits for the device."""
        if not -np.inf < float(self._highest) <= BOUND:
            raise NotFiniteError

    def _moved(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._values.device)


def _turned(bits: torch.Tensor) -> torch.Tensor:
    """Turns the order of negative floats round, int32 bits of them; its own inverse."""
    return bits ^ (bits >> 31 & 0x7FFFFFFF)
