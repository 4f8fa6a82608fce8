"""What proposes tokens."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence as Wanted
from typing import ClassVar

from engine.sequence import Sequence


class Drafter(ABC):
    """Follows sequences and guesses how they go on. A guess may be wrong, and nothing is lost but time.

    `worth`: the share of its tokens that must be accepted to save as much time as the others cost.
    """

    worth: ClassVar[float]

    @abstractmethod
    def draft(self, wanted: Wanted[tuple[Sequence, int]]) -> list[list[int]]:
        """For each sequence at most so many tokens (>= 1) that may follow its `tokens`; maybe none.

        The sequences are different ones and stay as they are.
        """

    @abstractmethod
    def take_back(self, sequence: Sequence) -> None:
        """The sequence has lost tokens at its end, and has none beyond `tokens` now."""

    @abstractmethod
    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended. Nothing happens if it was never seen."""

    @abstractmethod
    def check_integrity(self, alive: Mapping[str, Sequence]) -> None:
        """Raise `AssertionError` if books are wrong, or kept for others than these, which have their ids."""
