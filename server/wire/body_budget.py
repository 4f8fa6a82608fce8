"""How many bytes of large bodies are held at a time, over all clients and by one."""

from collections import Counter

from engine.errors import BusyError

FREE_BYTES = 128 << 10
"""Of each body; only what is beyond them counts. Most chats are smaller, and always find room."""
LARGE_BYTES = 128 << 20
"""Of all bodies together, or one body of the largest size. Text, parsed values and their copies take up to
five times as much."""
OWNER_PART = 2
"""The bodies of one address may take half of that, or one body of the largest size."""


class BodyBudget:
    """Counts the bytes of bodies while their requests are served. Belongs to one event loop."""

    def __init__(self, largest: int = 0, limit: int | None = None) -> None:
        """`largest`: bytes of the largest body, for which there is always room when no other is held.

        `limit`: bytes beyond `FREE_BYTES` of each; `LARGE_BYTES` unless it says otherwise.
        """
        limit = LARGE_BYTES if limit is None else limit
        self._limit = max(limit, largest)
        self._limit_of_one = max(limit // OWNER_PART, largest)
        self._taken = 0
        self._taken_by: Counter[str] = Counter()

    def open(self, owner: str | None = None) -> "BodyShare":
        """The share of one body: a context that gives back what it took.

        `owner`: the client that it counts to; None for one that may take all there is.
        """
        return BodyShare(self, owner)

    def take(self, owner: str | None, count: int) -> None:
        """Count more bytes. Raises `BusyError` where there is no room for them."""
        room = self._limit - self._taken
        if owner is not None:
            room = min(room, self._limit_of_one - self._taken_by[owner])
        if count > room:
            raise BusyError("too many large requests at once; please try again later")
        self._taken += count
        if owner is not None:
            self._taken_by[owner] += count

    def give_back(self, owner: str | None, count: int) -> None:
        """Count fewer."""
        self._taken -= count
        if owner is not None:
            self._taken_by[owner] -= count
            if not self._taken_by[owner]:
                del self._taken_by[owner]


class BodyShare:
    """What one body has taken."""

    def __init__(self, budget: BodyBudget, owner: str | None) -> None:
        self._budget = budget
        self._owner = owner
        self.taken = 0

    def __enter__(self) -> "BodyShare":
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self._owner, self.taken)

    def grow_to(self, length: int) -> None:
        """Note the body's present length in bytes. Raises `BusyError`."""
        more = max(0, length - FREE_BYTES) - self.taken
        if more > 0:
            self._budget.take(self._owner, more)
            self.taken += more
