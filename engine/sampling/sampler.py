"""Draws one token for each sequence that has caught up."""

from collections.abc import Sequence

import torch

from engine.sampling.candidates import Candidates
from engine.sampling.chain import Chain, compile_chain
from engine.sampling.random import MersenneTwister, fresh_seed
from engine.types import GenerationRequest


class SequenceSampler:
    """The sampling state of one request: its chain and its random numbers."""

    def __init__(self, request: GenerationRequest, end_ids: frozenset[int]) -> None:
        seed = request.sampling.seed
        self.seed = fresh_seed() if seed is None else seed
        self._chain: Chain = compile_chain(request.sampling, end_ids if request.ban_eos else frozenset())
        self._random = MersenneTwister(self.seed)

    def draw(self, logits: torch.Tensor, context: Sequence[int]) -> int:
        """The next token of a sequence, from float32 [vocab] and the tokens in front."""
        if self._chain.greedy:
            return self._chain.best(logits, context)
        candidates = self._chain(logits, context)
        return int(candidates.ids[self._index(candidates)])

    def _index(self, candidates: Candidates) -> int:
        # A number is drawn for a single candidate too, so that settings do not shift the stream.
        u = self._random.uniform()
        if len(candidates.ids) == 1:
            return 0
        cumulative = candidates.probabilities().cumsum(0)
        cumulative[-1] = 1.0
        # A damaged model's NaN compares with nothing: the draw stays within bounds all the same.
        return min(int(torch.searchsorted(cumulative, u)), len(candidates.ids) - 1)


class Sampler:
    """Samplers of all requests under way, by request id."""

    def __init__(self, end_ids: frozenset[int]) -> None:
        self._end_ids = end_ids
        self._sequences: dict[str, SequenceSampler] = {}

    def add(self, request: GenerationRequest) -> None:
        """Prepare the chain and the random numbers of a request."""
        self._sequences[request.request_id] = SequenceSampler(request, self._end_ids)

    def remove(self, request_id: str) -> None:
        """Forget a request."""
        del self._sequences[request_id]

    def seed(self, request_id: str) -> int:
        """The seed that the request runs with, its own or a drawn one."""
        return self._sequences[request_id].seed

    def sample(self, logits: torch.Tensor, contexts: Sequence[tuple[str, Sequence[int]]]) -> list[int]:
        """One token for each row of logits, float32 [n, vocab]; `contexts`: request id and tokens."""
        return [
            self._sequences[request_id].draw(row, tokens)
            for row, (request_id, tokens) in zip(logits, contexts, strict=True)
        ]
