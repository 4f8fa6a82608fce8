"""Shares the prompt tokens of a step among clients, and those of a client among its sequences.

Every client with prompts to read gets the same share; what one cannot use goes to the others. A share is at
least `QUANTUM` tokens, so that no step reads a token or two of each of many long contexts: where the budget
holds fewer shares than there are clients, those served longest ago come first. A new client need not wait for
a whole round: it comes next to the one that has waited longest.

Within a client the sequence with the fewest tokens left comes first, so that short requests pass long ones.
Once in `OLDEST_EVERY` of its turns a client begins with its oldest sequence. Hence with n clients, and at
least `QUANTUM` prompt tokens in each step, the oldest sequence of each client gets a share of at least
`QUANTUM` tokens (or all that it lacks) in any 2 * `OLDEST_EVERY` * n steps in which its client has work: new
clients, and such that come back, take every other turn at most.
"""

from collections.abc import Iterable

from engine.sequence import Sequence

QUANTUM = 16
OLDEST_EVERY = 4

Grant = tuple[Sequence, int]
"""A sequence, and how many of its tokens are computed in a step."""


class FairShare:
    """Knows when each client that has prompts to read was served last. Knows no blocks."""

    def __init__(self) -> None:
        self._served = 0
        self._places: dict[str, int] = {}
        """When each client was served last; for a new one, when the client that it comes next to was."""
        self._turns: dict[str, int] = {}
        """How often each was served."""

    def grant(self, budget: int, sequences: Iterable[Sequence]) -> list[Grant]:
        """Divide a budget of tokens among sequences; changes nothing."""
        lines: dict[str, list[Sequence]] = {}
        for sequence in sorted(sequences, key=lambda one: one.arrival):
            lines.setdefault(sequence.client, []).append(sequence)
        place = self._new_place(lines)
        # Sorting is stable: among equals the older request decides.
        clients = sorted(lines, key=lambda client: self._places.get(client, place))
        left = {client: self._ordered(client, lines[client]) for client in clients}
        counts: dict[Sequence, int] = {}
        most = max(1, budget // QUANTUM)
        while budget and clients:
            served = clients[:most]
            share = -(-budget // len(served))
            for client in served:
                budget -= _spend(left[client], min(share, budget), counts)
                if not left[client]:
                    clients.remove(client)
        return list(counts.items())

    def note(self, present: Iterable[Sequence], served: Iterable[Sequence]) -> None:
        """Take note of a step: of those that `grant` could choose from, and of those that advanced."""
        clients = {sequence.client for sequence in present}
        place = self._new_place(clients)
        # A client without work is forgotten.
        self._places = {client: self._places.get(client, place) for client in clients}
        self._turns = {client: self._turns.get(client, 0) for client in clients}
        for client in dict.fromkeys(sequence.client for sequence in served):
            self._served += 1
            self._places[client] = self._served
            self._turns[client] += 1

    def _new_place(self, clients: Iterable[str]) -> int:
        """The place of a new client. Others that are new do not count, or it would never move on."""
        served = (self._places[client] for client in clients if self._turns.get(client, 0))
        return min(served, default=self._served)

    def _ordered(self, client: str, line: list[Sequence]) -> list[Sequence]:
        """The sequences of a client, given by age, in the order in which they are served, last one first."""
        # One that has made tokens already was preempted: somebody reads its reply.
        order = sorted(line, key=lambda one: (one.generated == 0, one.remaining))
        if self._turns.get(client, 0) % OLDEST_EVERY == OLDEST_EVERY - 1:
            order.remove(line[0])
            order.insert(0, line[0])
        return order[::-1]


def _spend(left: list[Sequence], budget: int, counts: dict[Sequence, int]) -> int:
    """Spend a client's share on its sequences, from the end of the list; what was used of it."""
    unused = budget
    while unused and left:
        sequence = left[-1]
        count = min(sequence.missing - counts.get(sequence, 0), unused)
        counts[sequence] = counts.get(sequence, 0) + count
        unused -= count
        if counts[sequence] == sequence.missing:
            left.pop()
    return budget - unused
