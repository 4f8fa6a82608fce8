"""How many bytes of large bodies are held at a time, over all clients."""

from engine.errors import BusyError

FREE_BYTES = 1 << 20
"""Of each body; only what is beyond them counts."""
LARGE_BYTES = 128 << 20
"""Of all bodies together. Text, parsed values and their copies take up to five times as much."""


class BodyBudget:
    """Counts the bytes of bodies while they are read and parsed. Belongs to one event loop."""

    def __init__(self, limit: int = LARGE_BYTES) -> None:
        """`limit`: bytes beyond `FREE_BYTES` of each."""
        self._left = limit

    def open(self) -> "BodyShare":
        """The share of one body: a context that gives back what it took."""
        return BodyShare(self)

    def take(self, count: int) -> None:
        """Count more bytes. Raises `BusyError` where there is no room for them."""
        if count > self._left:
            raise BusyError("too many large requests at once; please try again later")
        self._left -= count

    def give_back(self, count: int) -> None:
        """Count fewer."""
        self._left += count


class BodyShare:
    """What one body has taken."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._taken = 0

    def __enter__(self) -> "BodyShare":
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self._taken)

    def grow_to(self, length: int) -> None:
        """Note the body's present length in bytes. Raises `BusyError`."""
        more = max(0, length - FREE_BYTES) - self._taken
        if more > 0:
            self._budget.take(more)
            self._taken += more
