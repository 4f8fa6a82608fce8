"""Where one reply stands in its grammar."""

import logging
import time
from collections.abc import Callable

from engine.grammar.compiled import CompiledGrammar, describe, is_too_much, is_worn_out
from engine.grammar.tokens import Mask

BURST_SECONDS = 0.25
"""Of the processor, that the masks of one reply may take at any pace."""
MASK_SECONDS = 0.003
"""That each of them may take beyond that, on average. Those of schemas and tool calls take 0.01 to 0.1 ms."""

_log = logging.getLogger(__name__)


class GrammarState:
    """The tokens of a reply so far, and what may come next. For one thread; never raises for its grammar.

    An end token is accepted at any time and ends the text: nothing but end tokens may follow. The same
    happens, with a line in the log, when llguidance gives up over a grammar that takes too much work.

    `refusal` says, in one line, that it does, or that its masks have taken too much time: everybody waits for
    them. None: all is well. A `lenient` grammar lets go instead: from there on any token may come.
    """

    def __init__(
        self,
        compiled: CompiledGrammar,
        clock: Callable[[], float] = time.thread_time,
        *,
        lenient: bool = False,
    ) -> None:
        """`clock`: seconds that the calling thread has computed."""
        self.refusal: str | None = None
        self._lenient = lenient
        self._free = False
        self._clock = clock
        self._allowed = BURST_SECONDS
        """Seconds that masks may still take."""
        self._compiled = compiled
        self._tokens = compiled.tokens
        self._matcher = compiled.matcher()
        self._accepted: list[int] = []
        # how many of the accepted tokens came before the end, None while there is none
        self._end: int | None = None
        self._renewed = False
        self._warned = False

    @property
    def finished(self) -> bool:
        """Whether nothing but an end token may follow."""
        return self._end is not None or (not self._free and self._matcher.is_stopped())

    def mask(self) -> Mask:
        """The tokens that may come next, uint32 (ceil(vocabulary / 32)); the caller's to keep.

        The end tokens, if the text may end here or cannot go on. Tokens without text never.
        """
        start = self._clock()
        mask = self._mask()
        self._allowed += MASK_SECONDS
        self._charge(start)
        return mask

    def accept(self, token_id: int) -> None:
        """Go on by a token that the mask allowed. Another one ends the text."""
        start = self._clock()
        self._accept(token_id)
        self._charge(start)

    def rollback(self, count: int) -> None:
        """Forget the last `count` accepted tokens. Raises ValueError if there are not so many."""
        kept = len(self._accepted) - count
        if not 0 <= kept <= len(self._accepted):
            raise ValueError(f"cannot take back {count} of {len(self._accepted)} tokens")
        consumed = len(self._accepted) if self._end is None else self._end
        del self._accepted[kept:]
        if count == 0 or kept > consumed:
            return
        self._end = None
        if self._free:
            return
        if self._matcher.is_error() or not self._matcher.rollback(consumed - kept):
            self._replay()

    def _charge(self, start: float) -> None:
        self._allowed -= self._clock() - start
        if self._allowed < 0 and self.refusal is None and not self._free:
            self._refuse(
                "to find the tokens that may come next took "
                f"{MASK_SECONDS * 1000:.0f} ms a token and more; make it simpler"
            )

    def _refuse(self, reason: str) -> None:
        if self._lenient:
            self._free = True
            _log.warning("a reply goes on without its grammar, which is too ambiguous: %s", reason)
        else:
            self.refusal = f"the grammar is too ambiguous: {reason}"

    def _mask(self) -> Mask:
        if self._end is None and not self._free:
            mask = self._tokens.spread(self._matcher.compute_bitmask())
            if self._matcher.is_error() and self._recovered():
                mask = self._tokens.spread(self._matcher.compute_bitmask())
            if not self._matcher.is_error():
                # llguidance allows an end token just where the text may end or cannot go on
                return mask | self._tokens.ends if (mask & self._tokens.ends).any() else mask
            self._fail()
        return self._tokens.all.copy() if self._free and self._end is None else self._tokens.ends.copy()

    def _accept(self, token_id: int) -> None:
        if self._end is None:
            if self._tokens.is_end(token_id):
                self._end = len(self._accepted)
            elif (
                not self._free
                and not self._consume(token_id)
                and not (self._recovered() and self._consume(token_id))
            ):
                self._fail()
        self._accepted.append(token_id)

    def _consume(self, token_id: int) -> bool:
        return self._matcher.consume_token(self._tokens.original(token_id))

    def _replay(self) -> None:
        """Start over with the tokens accepted so far: a matcher never leaves its error state."""
        self._matcher = self._compiled.matcher()
        self._matcher.consume_tokens([self._tokens.original(token_id) for token_id in self._accepted])

    def _recovered(self) -> bool:
        """Whether the text goes on with a lexer that other texts have not filled; once in a text."""
        if self._renewed or not is_worn_out(self._matcher):
            return False
        self._renewed = True
        self._compiled.renew()
        self._replay()
        return not self._matcher.is_error()

    def _fail(self) -> None:
        if is_too_much(self._matcher):
            self._refuse(describe(self._matcher))
            if self._free:
                return
        self._end = len(self._accepted)
        if not self._warned:
            self._warned = True
            _log.warning("a grammar ends the text early: %s", describe(self._matcher))
