"""Grammars that bind a reply: masks over the vocabulary, by the library llguidance.

Knows tokens and the messages of the engine. Knows no torch, no model and no sampling.
"""

from engine.grammar.compiler import GrammarCompiler
from engine.grammar.state import GrammarState

__all__ = ["GrammarCompiler", "GrammarState"]
