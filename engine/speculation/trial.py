"""One sequence that draws tokens in a step: one, or with a draft several in a row."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.generation import Generation
from engine.output import Verdict
from engine.plan import Plan


@dataclass(slots=True)
class Trial:
    """Which of a step's logits are a sequence's, and what its draws have come to so far.

    `row`: of the step's logits, float32 [n, vocab], the one behind the last token that is known; those behind
    the tokens of `draft` follow it. A row counts only if all tokens drawn before it were the draft's.
    """

    generation: Generation
    row: int
    draft: tuple[int, ...] = ()
    accepted: int = 0
    """Tokens of the draft that were drawn."""
    going: bool = True
    """Whether `row` is to be drawn from."""
    verdict: Verdict | None = None
    """What all draws came to; None before the first."""

    @classmethod
    def all_of(cls, plan: Plan, generations: Mapping[str, Generation]) -> "list[Trial]":
        """Those of a plan's sequences that have caught up, in the order of their rows."""
        trials: list[Trial] = []
        row = 0
        for chunk in plan:
            if chunk.completes:
                trials.append(cls(generations[chunk.sequence.id], row, chunk.draft))
                row += 1 + len(chunk.draft)
        return trials

    def take(self, token: int, verdict: Verdict) -> None:
        """Note a token drawn from `row` and what it came to; go on to the next row if that counts."""
        self.verdict = verdict if self.verdict is None else self.verdict + verdict
        met = self.accepted < len(self.draft) and token == self.draft[self.accepted]
        self.accepted += met
        # At an end and where tokens go back, what was drafted follows other tokens than those that stay.
        self.going = met and verdict.finish is None and not verdict.rewind
        self.row += self.going
