"""Sets of code points, held small."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.grammar.gbnf_nodes import MAX_CODE_POINT

MAX_RANGES = 64
"""A set with more is replaced by a larger set with as many."""


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """Code points in ascending ranges (first and last, both included) that neither overlap nor touch."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> "CharacterSet":
        """All code points in any of the ranges, and possibly more if they are many."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        if len(merged) > MAX_RANGES:
            merged[MAX_RANGES - 1 :] = [(merged[MAX_RANGES - 1][0], merged[-1][1])]
        return cls(tuple(merged))

    def complement(self) -> "CharacterSet":
        """All other code points."""
        gaps, at = [], 0
        for first, last in self.ranges:
            if first > at:
                gaps.append((at, first - 1))
            at = last + 1
        return CharacterSet.of([*gaps, (at, MAX_CODE_POINT)] if at <= MAX_CODE_POINT else gaps)

    def __or__(self, other: "CharacterSet") -> "CharacterSet":
        return CharacterSet.of(self.ranges + other.ranges)

    def isdisjoint(self, other: "CharacterSet") -> bool:
        """Whether no code point is in both."""
        mine, theirs = list(self.ranges), list(other.ranges)
        while mine and theirs:
            if mine[-1][0] > theirs[-1][1]:
                mine.pop()
            elif theirs[-1][0] > mine[-1][1]:
                theirs.pop()
            else:
                return False
        return True
