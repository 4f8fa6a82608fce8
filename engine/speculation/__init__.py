"""Guesses what comes next, so that one run of the model can make several tokens.

A drafter proposes tokens, the model computes them beside the last known one, and the usual sampler draws a
token from each row in turn. As long as what is drawn is what was proposed, the next row counts; the rest
is dropped. So each token is drawn from the logits, and with the random number, that it would have had
alone: drafts change how fast a reply comes, never the reply (Leviathan et al. 2023, arXiv 2211.17192, has
the idea with another rule of acceptance, which keeps the distribution but not the tokens of a seed).
"""

from engine.speculation.speculator import Speculator, start_speculation
from engine.speculation.trial import Trial

__all__ = ["Speculator", "Trial", "start_speculation"]
