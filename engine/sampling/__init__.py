"""Choosing the next token: a chain of small pure steps, compiled once per request."""

from engine.sampling.candidates import Candidates
from engine.sampling.chain import Chain, compile_chain
from engine.sampling.random import MersenneTwister, fresh_seed
from engine.sampling.sampler import Sampler, SequenceSampler

__all__ = [
    "Candidates",
    "Chain",
    "MersenneTwister",
    "Sampler",
    "SequenceSampler",
    "compile_chain",
    "fresh_seed",
]
