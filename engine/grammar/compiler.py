"""From the grammar of a request to the state that a reply begins with."""

from collections import OrderedDict
from threading import Lock

from engine.errors import RequestError
from engine.grammar import lark
from engine.grammar.compiled import CompiledGrammar
from engine.grammar.gbnf import gbnf_to_lark
from engine.grammar.json_schema import MAX_LENGTH, json_schema_to_lark
from engine.grammar.state import GrammarState
from engine.grammar.tagged import tagged_to_lark
from engine.grammar.tokens import GrammarTokens
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar, Grammar, JsonGrammar, TaggedGrammar

MAX_COMPILED = 32
"""Compiled grammars that are kept, those used last."""


class GrammarCompiler:
    """Compiles grammars for one tokenizer. All methods are thread-safe."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Cheap: what llguidance needs of the tokenizer is built with the first grammar."""
        self._tokenizer = tokenizer
        self._tokens: GrammarTokens | None = None
        self._building = Lock()
        self._compiled: OrderedDict[Grammar, CompiledGrammar] = OrderedDict()
        self._caching = Lock()

    def check(self, grammar: Grammar) -> None:
        """Compile the grammar and keep the result for `start`.

        Raises RequestError, one line that says what is wrong and where, for a grammar that is not valid,
        too large, or admits no text.
        """
        self._compile(grammar)

    def start(self, grammar: Grammar) -> GrammarState:
        """The state of an empty reply. Cheap after `check`. Raises RequestError as `check` does."""
        return GrammarState(self._compile(grammar))

    def _library_tokens(self) -> GrammarTokens:
        with self._building:
            if self._tokens is None:
                self._tokens = GrammarTokens(self._tokenizer)
            return self._tokens

    def _compile(self, grammar: Grammar) -> CompiledGrammar:
        with self._caching:
            compiled = self._compiled.get(grammar)
            if compiled is not None:
                self._compiled.move_to_end(grammar)
                return compiled
        # not under the lock: another thread's grammar may take its time
        tokens = self._library_tokens()
        compiled = CompiledGrammar(_to_lark(grammar, tokens), tokens)
        with self._caching:
            self._compiled[grammar] = compiled
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return compiled


def _to_lark(grammar: Grammar, tokens: GrammarTokens) -> str:
    match grammar:
        case GbnfGrammar(text):
            if len(text) > MAX_LENGTH:
                raise RequestError(f"the grammar is longer than {MAX_LENGTH} characters")
            # no rule begins with a brace; KoboldCpp takes such a grammar for a JSON schema
            return _json_document(text) if text.lstrip().startswith("{") else gbnf_to_lark(text)
        case JsonGrammar(schema):
            return _json_document(schema)
        case TaggedGrammar():
            return tagged_to_lark(grammar, tokens)


def _json_document(schema: str) -> str:
    return f"{lark.HEADER}\n{lark.START}: {json_schema_to_lark(schema)}\n"
