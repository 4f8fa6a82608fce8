"""From the grammar of a request to the state that a reply begins with."""

import logging
from collections import OrderedDict
from dataclasses import replace
from threading import Lock

from engine.errors import RequestError
from engine.grammar import lark
from engine.grammar.compiled import CompiledGrammar
from engine.grammar.gbnf import gbnf_to_lark
from engine.grammar.json_schema import MAX_LENGTH, json_schema_to_lark
from engine.grammar.relaxed_schema import FREE, Relaxer
from engine.grammar.state import GrammarState
from engine.grammar.tagged import tagged_to_lark
from engine.grammar.tokens import GrammarTokens
from engine.printable import quoted
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar, Grammar, JsonGrammar, TaggedGrammar

MAX_COMPILED = 32
"""Compiled grammars that are kept, those used last."""

_MOST_NAMED = 8
"""Tags of one grammar that a line of the log names."""

_log = logging.getLogger(__name__)


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
        too large, or admits no text. Never for the schemas of a `TaggedGrammar`: what no grammar can hold
        of them is left out, a line of the log names it, and a reply for which the rest is too much work
        goes on without.
        """
        self._compile(grammar)

    def start(self, grammar: Grammar) -> GrammarState:
        """The state of an empty reply. Cheap after `check`. Raises RequestError as `check` does."""
        return GrammarState(self._compile(grammar), lenient=isinstance(grammar, TaggedGrammar))

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
        compiled = _compiled(grammar, tokens)
        with self._caching:
            self._compiled[grammar] = compiled
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return compiled


def _compiled(grammar: Grammar, tokens: GrammarTokens) -> CompiledGrammar:
    try:
        return CompiledGrammar(_to_lark(grammar, tokens), tokens)
    except RequestError:
        if not isinstance(grammar, TaggedGrammar):
            raise
    relaxed = _relaxed(grammar, tokens)
    try:
        return CompiledGrammar(_to_lark(relaxed, tokens), tokens)
    except RequestError as error:
        # each schema can be held, but not all of them together
        free = replace(grammar, tags=tuple(replace(tag, schema=FREE) for tag in grammar.tags))
        compiled = CompiledGrammar(_to_lark(free, tokens), tokens)
        _log.warning("the grammar of a request leaves out all schemas of its tools: %s", error)
        return compiled


def _relaxed(grammar: TaggedGrammar, tokens: GrammarTokens) -> TaggedGrammar:
    """The grammar with schemas that can be held; the others stay as they are."""

    def holds(schema: str) -> bool:
        try:
            CompiledGrammar(_json_document(schema), tokens)
        except RequestError:
            return False
        return True

    relaxer = Relaxer(holds)
    tags, told = [], []
    for tag in grammar.tags:
        schema, left_out = relaxer.relax(tag.schema)
        if left_out:
            told.append(f"{quoted(tag.name or tag.begin)} without {', '.join(left_out)}")
        tags.append(replace(tag, schema=schema))
    if told:
        more = f" and {len(told) - _MOST_NAMED} more" if len(told) > _MOST_NAMED else ""
        _log.warning("the grammar holds the tools %s%s", "; ".join(told[:_MOST_NAMED]), more)
    return replace(grammar, tags=tuple(tags))


def _to_lark(grammar: Grammar, tokens: GrammarTokens) -> str:
    match grammar:
        case GbnfGrammar(text):
            if len(text) > MAX_LENGTH:
                raise RequestError(f"the grammar is longer than {MAX_LENGTH} characters")
            # no rule begins with a brace; KoboldCpp takes such a grammar for a JSON schema
            return _json_document(text) if text.lstrip().startswith("{") else gbnf_to_lark(text, tokens)
        case JsonGrammar(schema):
            return _json_document(schema)
        case TaggedGrammar():
            return tagged_to_lark(grammar, tokens)


def _json_document(schema: str) -> str:
    return f"{lark.HEADER}\n{lark.START}: {json_schema_to_lark(schema)}\n"
