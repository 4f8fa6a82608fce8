"""Sequences that wait for a place: who is let in next, and who gives up a place. Knows no blocks."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from engine.sequence import Sequence, SequenceState

MOST_PASSES = 8
"""How often later sequences may be let in before one that found too few free blocks."""

MOST_SENT_BACK = 2
"""How often a sequence gives its place to another client."""


class Queue:
    """Waiting sequences, by age."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(sorted(self._sequences, key=_age))

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self.put_back(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Queue a sequence that had a place, by its first arrival."""
        sequence.state = SequenceState.WAITING
        self._sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out."""
        self._sequences.remove(sequence)

    def next(
        self,
        running: Iterable[Sequence],
        places: int,
        *,
        stuck: Collection[Sequence] = (),
        following: Collection[Sequence] = (),
    ) -> list[Sequence]:
        """Which sequences may have so many free places, the first one first.

        One that has made tokens was preempted, and goes first. Then clients with fewer places go first, those
        that are given away here included, then who came earlier. `following`: sequences that are left out.
        `stuck`: those, too, for they find too few blocks. Where others have passed one of them often enough,
        or where it has made tokens, nobody is let in: the blocks that come free are kept for it.
        """
        if places <= 0 or any(one.generated > 0 or one.passed >= MOST_PASSES for one in stuck):
            return []
        held = Counter(sequence.client for sequence in running)
        lines: dict[str, list[Sequence]] = {}
        for sequence in sorted(self._sequences, key=_age, reverse=True):
            if sequence not in stuck and sequence not in following:
                lines.setdefault(sequence.client, []).append(sequence)
        found: list[Sequence] = []
        while lines and len(found) < places:
            client = min(lines, key=lambda client: _rank(lines[client][-1], held[client]))
            found.append(lines[client].pop())
            held[client] += 1
            if not lines[client]:
                del lines[client]
        return found

    def has_newcomer(self, running: Iterable[Sequence]) -> bool:
        """Whether a client waits that has no running sequence."""
        served = {sequence.client for sequence in running}
        return any(sequence.client not in served for sequence in self._sequences)


def follows(sequence: Sequence, readers: Iterable[Sequence], block_size: int) -> bool:
    """Whether one of `readers` is about to compute the next block that a waiting sequence needs, too.

    It is worth the wait: the block is then in the prefix cache.
    """
    if sequence.anew:
        return False
    for reader in readers:
        end = (reader.computed // block_size + 1) * block_size
        # The last token of a sequence is never taken from the cache, and inexact blocks never are.
        shared = end < len(sequence.tokens) and end <= len(reader.tokens)
        exact = reader.shifted_from is None and reader.moved is None
        if shared and exact and sequence.tokens[:end] == reader.tokens[:end]:
            return True
    return False


def gives_way(running: Iterable[Sequence], readers: Iterable[Sequence]) -> Sequence | None:
    """Who gives its place to a client without any: the youngest reader of the client with the most places.

    Its client must keep another place. What it has computed is to be found in the prefix cache later, so
    those are left out of which no prefix is kept, and those that gave way often enough.
    """
    places = Counter(sequence.client for sequence in running)
    candidates = [
        one
        for one in readers
        if places[one.client] > 1
        and one.sent_back < MOST_SENT_BACK
        and not (one.generated or one.anew or one.moved)
        and one.shifted_from is None
    ]
    return max(candidates, key=lambda one: (places[one.client], one.arrival), default=None)


def _age(sequence: Sequence) -> tuple[bool, int]:
    return sequence.generated == 0, sequence.arrival


def _rank(sequence: Sequence, held: int) -> tuple[bool, int, int]:
    return sequence.generated == 0, held if sequence.generated == 0 else 0, sequence.arrival
