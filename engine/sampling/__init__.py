"""Choosing the next token: a chain of small pure steps, compiled once per request.

Knows logits, tokens and a request's settings; nothing of models, caches or texts but the bytes of tokens.
"""

from engine.sampling.row import NO_DRAW, Draw, Row
from engine.sampling.sampler import Sampler

__all__ = ["NO_DRAW", "Draw", "Row", "Sampler"]
