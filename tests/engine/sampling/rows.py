"""Rows of logits and requests made short, for tests of the samplers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.sampling.breakers import Breakers
from engine.sampling.candidates import Candidates
from engine.sampling.host_logits import HostLogits
from engine.sampling.row import Row
from engine.sampling.sequence_sampler import SequenceSampler
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.types import GenerationRequest, SamplingParams, TokenPrompt


def host(values: Any) -> HostLogits:
    """A model's row, with memory of its own to work in."""
    array = np.array(values, np.float32)
    return HostLogits(array, np.empty_like(array))


def candidates_of(logits: Any) -> Candidates:
    """All logits of a row as candidates, token i with the i-th."""
    array = np.array(logits, np.float32)
    return Candidates.ranked(np.arange(len(array)), array)


def request(params: SamplingParams, name: str = "x", **others: Any) -> GenerationRequest:
    """A request for one token; `others` are its other fields."""
    return GenerationRequest(name, TokenPrompt((0,)), 1, params, **others)


def one_token_breaker(token: int, vocab_size: int) -> Breakers:
    """Breakers whose only sequence is one token."""
    alone, none = np.arange(vocab_size) == token, np.zeros(vocab_size, np.bool_)
    nothing = np.empty(0, np.int64)
    return Breakers(alone, none, none, nothing, nothing, ())


def selected(
    sampler: SequenceSampler, raw: VocabularyLogits, tokens: Sequence[int], row: Row | None = None
) -> tuple[int, dict[int, float]]:
    """The token drawn, and the probabilities behind all samplers."""
    selection = sampler.begin(raw, Row("x", tokens) if row is None else row)()
    found = selection.candidates
    return selection.token, dict(zip(found.ids.tolist(), found.probabilities().tolist(), strict=True))
