"""Drafts by look-up: what followed the same tokens earlier in the same text."""

from collections.abc import Mapping
from collections.abc import Sequence as Wanted

from engine.sequence import Sequence
from engine.speculation.drafter import Drafter
from engine.speculation.ngram_index import NgramIndex


class NgramDrafter(Drafter):
    """Needs no model: it pays where replies quote their prompt or themselves, and costs little elsewhere.

    The method is known as prompt look-up decoding (Saxena 2023).
    """

    worth = 0.25
    """With the native kernels a row beside another one costs up to a quarter of a row alone."""

    def __init__(self) -> None:
        self._indices: dict[str, NgramIndex] = {}

    def draft(self, wanted: Wanted[tuple[Sequence, int]]) -> list[list[int]]:
        """See `Drafter.draft`."""
        return [self._index(sequence).continuation(count) for sequence, count in wanted]

    def take_back(self, sequence: Sequence) -> None:
        """See `Drafter.take_back`."""
        index = self._indices.get(sequence.id)
        if index is not None:
            index.truncate(len(sequence.tokens))

    def forget(self, sequence: Sequence) -> None:
        """See `Drafter.forget`."""
        self._indices.pop(sequence.id, None)

    def check_integrity(self, alive: Mapping[str, Sequence]) -> None:
        """See `Drafter.check_integrity`."""
        assert self._indices.keys() <= alive.keys(), "an index is left behind"
        for name, index in self._indices.items():
            assert index.tokens == alive[name].tokens[: len(index)], "an index has other tokens"

    def _index(self, sequence: Sequence) -> NgramIndex:
        """The sequence's index, with all of its tokens."""
        index = self._indices.setdefault(sequence.id, NgramIndex())
        index.extend(sequence.tokens[len(index) :])
        return index
