"""Tags in text that comes in pieces."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a reply: of a thought, or of what is said."""

    text: str
    thought: bool


@dataclass(frozen=True, slots=True)
class Marker:
    """A tag that was found: `text[start:end]`."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """Where the text after the tag begins."""
        return self.start + len(self.text)


def find_marker(text: str, markers: Iterable[str]) -> Marker | None:
    """The first tag in the text, the longest of those at the same place."""
    found = (Marker(marker, place) for marker in markers if (place := text.find(marker)) >= 0)
    return min(found, key=lambda marker: (marker.start, -len(marker.text)), default=None)


def held_back(text: str, markers: Iterable[str]) -> int:
    """Characters at the end of the text that may become a tag: the longest such end's length."""
    return max((_overlap(text, marker) for marker in markers), default=0)


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of the text that is a beginning of the marker, not all of it."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
