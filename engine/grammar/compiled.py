"""A grammar that llguidance has compiled, to begin texts with."""

import re

from llguidance import LLMatcher, LLParserLimits

from engine.errors import RequestError
from engine.grammar.tokens import GrammarTokens

_MAX_LEXER_STATES = 50_000
"""At up to 2 KiB each; a fifth of llguidance's own limit."""

_MAX_SYMBOLS = 100_000
"""Of the compiled grammar; a fifth of llguidance's own limit."""

_MAX_ITEMS_IN_ROW = 1000
"""Ways to read a text at one place; half of llguidance's own limit. Real grammars need a few dozen."""

_MAX_ITEMS_IN_STEP = 20_000
"""Of a mask; two fifths of llguidance's own limit. They take about 20 ms, those of real grammars 1 ms."""

_MAX_STEP_FUEL = 100_000
"""Of the lexer for a mask, about 7 ms of work; half of llguidance's own limit."""

_MAX_ERROR = 300
_DEAD_END = "NoExtensionBias"
_WORN_OUT = "lexer error: too many states"
_TOO_MUCH = re.compile(r"too many|current row has|fuel", re.IGNORECASE)
_PLACE = re.compile(r"^(at )?\d+\(\d+\): |failed to compile JSON schema: ")
_SOURCE = re.compile(r"^\s*(\d+ \|.*|\^+|<non-verbose/>)\s*$")


class CompiledGrammar:
    """The beginning of all texts of one grammar.

    The matchers share the states that their lexer has met, of which it takes only so many. `renew` starts
    anew with none.
    """

    def __init__(self, lark: str, tokens: GrammarTokens) -> None:
        """Raises RequestError, one line, if llguidance refuses the grammar, or if it admits no text."""
        self.tokens = tokens
        self._lark = lark
        self._first = self._compile()
        mask = tokens.spread(self._first.compute_bitmask())
        # nothing is left but the end, where the text may not end
        stuck = bool((mask & tokens.ends).any()) and not (
            self._first.is_accepting() or self._first.is_error()
        )
        if stuck or self._first.get_error().startswith(_DEAD_END):
            raise RequestError("the grammar admits no text that the model's tokens can write")
        if self._first.is_error():
            raise RequestError(f"the grammar cannot be used: {describe(self._first)}")

    def matcher(self) -> LLMatcher:
        """A matcher at the beginning of the text; cheap."""
        return self._first.deep_copy()

    def renew(self) -> None:
        """Compile again, for matchers to come."""
        self._first = self._compile()

    def _compile(self) -> LLMatcher:
        limits = LLParserLimits(
            max_items_in_row=_MAX_ITEMS_IN_ROW,
            step_max_items=_MAX_ITEMS_IN_STEP,
            step_lexer_fuel=_MAX_STEP_FUEL,
            max_lexer_states=_MAX_LEXER_STATES,
            max_grammar_size=_MAX_SYMBOLS,
            verbose_errors=False,
        )
        return LLMatcher(self.tokens.library, self._lark, log_level=0, limits=limits)


def is_worn_out(matcher: LLMatcher) -> bool:
    """Whether the matcher failed because its lexer has met too many states, in this text or in others."""
    return matcher.get_error().startswith(_WORN_OUT)


def is_too_much(matcher: LLMatcher) -> bool:
    """Whether the matcher failed because the grammar takes too much work."""
    return _TOO_MUCH.search(matcher.get_error()) is not None


def describe(matcher: LLMatcher) -> str:
    """A matcher's error in one line, without the excerpt of a text that the client never saw."""
    error = matcher.get_error()
    lines = [line.strip() for line in error.splitlines() if line.strip() and not _SOURCE.match(line)]
    return _PLACE.sub("", " ".join(lines))[:_MAX_ERROR]
