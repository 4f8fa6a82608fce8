"""Keeps the thoughts of one request within their budget."""

from engine.tokenizer import Tokenizer
from engine.types import ThinkingBudget


class ThinkingLimit:
    """Counts the tokens of an open thought, and says which tokens close it once they are too many.

    Source of the rule: KoboldCpp's reasoning budget. Tags are looked for in the text, since most
    vocabularies write them with several tokens. A closing that another token interrupts, because a grammar
    or a ban does not let it go on, begins again.
    """

    def __init__(self, budget: ThinkingBudget, tokenizer: Tokenizer, prompt: list[int]) -> None:
        """`prompt`: the tokens in front of the reply, in which a thought may be open already."""
        self._budget = budget
        self._tokenizer = tokenizer
        self._closing = tokenizer.encode(budget.closing, add_bos=False)
        self._keep = max(len(budget.opening), len(budget.end))
        text = tokenizer.decode(prompt, render_special=True)
        self._open = text.rfind(budget.opening) > text.rfind(budget.end)
        self._thought = 0
        self._tail = ""
        self._left: list[int] = []
        self._before: list[tuple[bool, int, str, list[int]]] = []
        """The state in front of each token of the reply."""
        self._enforce()

    def push(self, token: int) -> None:
        """Take the next token of the reply in."""
        self._before.append((self._open, self._thought, self._tail, self._left))
        self._left = self._left[1:] if self._left[:1] == [token] else []
        raw = self._tokenizer.piece(token, render_special=True)
        self._tail = (self._tail + raw.decode(errors="replace"))[-2 * self._keep :]
        if self._open:
            self._thought += 1
            self._open = self._budget.end not in self._tail
            if not self._open:
                self._tail = ""
        elif self._budget.opening in self._tail:
            self._open, self._thought, self._tail = True, 0, ""
        self._enforce()

    def take_back(self, count: int) -> None:
        """Forget the last `count` tokens, which led to a banned phrase."""
        self._open, self._thought, self._tail, self._left = self._before[-count]
        del self._before[-count:]

    @property
    def forced(self) -> int | None:
        """The token that must come next; None leaves it to the model."""
        return self._left[0] if self._left else None

    def _enforce(self) -> None:
        if self._open and not self._left and self._thought >= self._budget.tokens:
            self._left = self._closing
