"""Compiles the sampling parameters of a request into the steps that it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.sampling import steps
from engine.sampling.candidates import MAX_CANDIDATES, Candidates
from engine.sampling.penalties import Penalties
from engine.types import Sampler, SamplingParams

OnVocabulary = Callable[[torch.Tensor, Sequence[int]], None]
OnCandidates = Callable[[Candidates, Sequence[int]], Candidates]


@dataclass(frozen=True, slots=True)
class Chain:
    """What happens between the model's logits and the draw.

    `vocabulary` steps change a row of logits in place (biases, bans, penalties); `cut` is how many of
    the best go on; `candidates` steps narrow them down. Both kinds see the context's tokens.
    """

    vocabulary: tuple[OnVocabulary, ...]
    cut: int
    candidates: tuple[OnCandidates, ...]

    @property
    def greedy(self) -> bool:
        """Whether the best token always wins: then `best` finds it, and nothing is drawn."""
        return self.cut == 1

    def best(self, logits: torch.Tensor, context: Sequence[int]) -> int:
        """The most likely token after the model's logits, float32 [vocab], which are left alone."""
        logits = self._changed(logits, context)
        # On the processor numpy finds it in a fifth of torch's time.
        return int(logits.argmax()) if logits.is_cuda else int(logits.numpy().argmax())

    def __call__(self, logits: torch.Tensor, context: Sequence[int]) -> Candidates:
        """Candidates for the draw from the model's logits, float32 [vocab], which are left alone."""
        candidates = Candidates.best(self._changed(logits, context), self.cut)
        for narrow in self.candidates:
            candidates = narrow(candidates, context)
        return candidates

    def _changed(self, logits: torch.Tensor, context: Sequence[int]) -> torch.Tensor:
        if self.vocabulary:
            logits = logits.clone()
            for change in self.vocabulary:
                change(logits, context)
        return logits


def compile_chain(params: SamplingParams, banned: frozenset[int] = frozenset()) -> Chain:
    """The chain of a request: neutral steps dropped, what can be is fused into the first cut.

    `banned` tokens are set to minus infinity, which no bias changes.
    """
    vocabulary: list[OnVocabulary] = []
    if banned or params.logit_bias:
        vocabulary.append(_bias(params.logit_bias, banned))
    chain = list(_active(params))
    if chain and chain[0][0] is Sampler.REP_PEN:
        # On the whole vocabulary a penalty costs as many operations as it has tokens, and no sort.
        vocabulary.append(Penalties(params).on_vocabulary)
        del chain[0]
    cut = MAX_CANDIDATES
    if params.temperature <= 0 and all(name is not Sampler.REP_PEN for name, _ in chain):
        return Chain(tuple(vocabulary), 1, ())
    if chain and chain[0][0] is Sampler.TOP_K:
        cut = min(cut, params.top_k)
        del chain[0]
    return Chain(tuple(vocabulary), cut, tuple(step for _, step in chain))


def _active(params: SamplingParams) -> list[tuple[Sampler, OnCandidates]]:
    """The steps in the request's order that change anything."""
    chain: list[tuple[Sampler, OnCandidates]] = []
    for name in params.order:
        if name is Sampler.REP_PEN and _penalises(params):
            chain.append((name, Penalties(params).on_candidates))
        chain += [(name, _without_context(step)) for step in _narrowing(name, params)]
    return chain


def _narrowing(name: Sampler, params: SamplingParams) -> list[steps.Step]:
    if name is Sampler.TOP_K and params.top_k >= 1:
        return [steps.top_k(params.top_k)]
    if name is Sampler.TOP_P:
        found = [steps.top_p(params.top_p)] if params.top_p < 1 else []
        return [*found, steps.min_p(params.min_p)] if params.min_p > 0 else found
    if name is Sampler.TEMPERATURE and params.temperature != 1:
        return [steps.temperature(params.temperature)]
    return []


def _penalises(params: SamplingParams) -> bool:
    return params.rep_pen != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0


def _without_context(step: steps.Step) -> OnCandidates:
    return lambda candidates, _context: step(candidates)


def _bias(bias: tuple[tuple[int, float], ...], banned: frozenset[int]) -> OnVocabulary:
    ids = torch.tensor([token for token, _ in bias], dtype=torch.int64)
    amounts = torch.tensor([amount for _, amount in bias], dtype=torch.float32)
    out = torch.tensor(sorted(banned), dtype=torch.int64)

    def step(logits: torch.Tensor, _context: Sequence[int]) -> None:
        logits.index_add_(0, ids.to(logits.device), amounts.to(logits.device))
        logits[out.to(logits.device)] = -torch.inf

    return step
