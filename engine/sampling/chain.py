"""Compiles the sampling parameters of a request into the steps that it needs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.native.shortlist import MOST_WANTED, Tail
from engine.sampling.breakers import Breakers
from engine.sampling.candidates import BOUND, MAX_CANDIDATES, Candidates, Ids, Logits
from engine.sampling.dry import Dry
from engine.sampling.penalties import Penalties
from engine.sampling.temperature import COLDEST, dynamic_temperature, smoothing, temperature
from engine.sampling.truncation import (
    Step,
    min_p,
    min_p_distance,
    nsigma,
    tail_free,
    top_a,
    top_k,
    top_p,
    typical,
)
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.types import Sampler, SamplingParams

OnVocabulary = Callable[[VocabularyLogits, Sequence[int]], None]
OnCandidates = Callable[[Candidates, Sequence[int]], Candidates]

_ADAPTIVE_MIN_P = 0.002
"""The `min_p` of adaptive-p where nothing else truncates."""
_MIROSTAT_ORDER = (Sampler.REP_PEN, Sampler.TEMPERATURE)
_CHANGES_THE_BEST = (Sampler.REP_PEN, Sampler.TYPICAL)


@dataclass(frozen=True, slots=True)
class Biases:
    """What is added to logits: `ids` int64 [n], all different, and `amounts` float32 [n]."""

    ids: Ids
    amounts: Logits

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, float]]) -> "Biases":
        """Sums up pairs with the same id, within `BOUND`; minus infinity excludes and is kept."""
        total: dict[int, float] = {}
        for token, amount in pairs:
            total[token] = total.get(token, 0.0) + min(amount, BOUND)
        amounts = np.fromiter(total.values(), np.float64, len(total))
        amounts = np.where(amounts == -np.inf, amounts, amounts.clip(-BOUND, BOUND))
        return cls(np.fromiter(total, np.int64, len(total)), amounts.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Chain:
    """What happens between the model's logits and the draw, in this order.

    `biases`, then the bans and the mask of the position, which are not the chain's; `vocabulary` steps
    change all logits in place; the `cut` best go on, none more than `within` below the best;
    `candidates` steps narrow them down. Both kinds of steps see the context's tokens. `greedy`: one
    candidate is left in the end.
    """

    biases: Biases | None
    vocabulary: tuple[OnVocabulary, ...]
    cut: int
    within: float
    candidates: tuple[OnCandidates, ...]
    greedy: bool
    tail: Tail | None = None
    """The same as `candidates` and `within`, where they come to no more than that."""

    def narrow(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """What the steps behind the cut leave of the candidates."""
        for step in self.candidates:
            candidates = step(candidates, tokens)
        return candidates


def uses_mirostat(params: SamplingParams) -> bool:
    """Whether mirostat takes the place of the chain."""
    return params.mirostat in (1, 2)


def uses_dry(params: SamplingParams) -> bool:
    """Whether DRY is on."""
    return params.dry_multiplier > 0 and params.dry_base > 0


def compile_chain(params: SamplingParams, breakers: Breakers | None = None) -> Chain:
    """The chain of a request: neutral steps dropped, what can be is fused into the first cut."""
    stages = list(_active(params))
    vocabulary: list[OnVocabulary] = [Dry(params, breakers)] if uses_dry(params) else []
    if stages and stages[0].name is Sampler.REP_PEN:
        # On the whole vocabulary a penalty costs as many operations as it has tokens, and no sort.
        vocabulary.append(Penalties(params).on_vocabulary)
        del stages[0]
    greedy = bool(stages) and stages[-1].decides
    cut, within = MAX_CANDIDATES, np.inf
    if greedy and not any(stage.name in _CHANGES_THE_BEST for stage in stages):
        cut, stages = 1, []
    while stages and (stages[0].count or stages[0].within is not None):
        first = stages.pop(0)
        cut = min(cut, first.count or cut)
        within = within if first.within is None else min(within, first.within)
    biases = Biases.of(params.logit_bias) if params.logit_bias else None
    steps = tuple(stage.step for stage in stages)
    tail = None if greedy or cut > MOST_WANTED else _tail(stages, within)
    return Chain(biases, tuple(vocabulary), cut, within, steps, greedy, tail)


def _tail(stages: Sequence["_Stage"], within: float) -> Tail | None:
    """The stages behind the cut as a tail, if each of them is in it and none comes out of turn."""
    found = {} if within == np.inf else {"distance": within}
    places = tuple(Tail.__dataclass_fields__)
    for stage in stages:
        if stage.tail is None or any(places.index(stage.tail[0]) <= places.index(name) for name in found):
            return None
        found[stage.tail[0]] = stage.tail[1]
    return Tail(**found)


@dataclass(frozen=True, slots=True)
class _Stage:
    """A step, and what it comes to where that is as simple: the `count` best, all `within` the best.

    `decides`: it leaves the likeliest only.
    """

    name: Sampler
    step: OnCandidates
    count: int = 0
    within: float | None = None
    decides: bool = False
    tail: tuple[str, float] | None = None
    """The field of `Tail` that says the same, and its value."""


def _active(params: SamplingParams) -> Iterator[_Stage]:
    """The steps in the request's order that change anything, up to one that decides."""
    penalties = Penalties(params)
    for name in _MIROSTAT_ORDER if uses_mirostat(params) else params.order:
        if name is Sampler.REP_PEN:
            if not penalties.neutral:
                yield _Stage(name, penalties.on_candidates)
        elif name is Sampler.TOP_K:
            if params.top_k >= 1:
                yield _Stage(name, _without_tokens(top_k(params.top_k)), count=params.top_k)
        elif name is Sampler.TOP_P:
            yield from _top_p_and_min_p(params)
        elif name is Sampler.TEMPERATURE and not params.temperature > COLDEST:
            yield _Stage(name, _without_tokens(top_k(1)), decides=True)
            return
        else:
            steps = list(_steps(name, params))
            alone = name is Sampler.TEMPERATURE and len(steps) == 1 and not _reshapes(params)
            tail = ("temperature", params.temperature) if alone else None
            for step in steps:
                yield _Stage(name, _without_tokens(step), tail=tail)


def _top_p_and_min_p(params: SamplingParams) -> Iterator[_Stage]:
    p = params.min_p
    if params.top_p < 1:
        tail = ("top_p", params.top_p)
        yield _Stage(Sampler.TOP_P, _without_tokens(top_p(params.top_p)), tail=tail)
    elif p <= 0 < params.adaptive_target:
        p = _ADAPTIVE_MIN_P
    if p > 0:
        distance = float(min_p_distance(p))
        tail = ("distance", distance)
        if distance < 0:
            yield _Stage(Sampler.TOP_P, _without_tokens(top_k(1)), count=1, tail=tail)
        else:
            yield _Stage(Sampler.TOP_P, _without_tokens(min_p(p)), within=distance, tail=tail)


def _steps(name: Sampler, params: SamplingParams) -> Iterator[Step]:
    """The steps of the stages that are nothing but candidates in and candidates out."""
    if name is Sampler.TOP_A and params.top_a > 0:
        yield top_a(params.top_a)
    elif name is Sampler.TFS and params.tfs < 1:
        yield tail_free(params.tfs)
    elif name is Sampler.TYPICAL and params.typical < 1:
        yield typical(params.typical)
    elif name is Sampler.TEMPERATURE:
        plain = uses_mirostat(params)
        if params.dynatemp_range != 0 and not plain:
            yield dynamic_temperature(params.temperature, params.dynatemp_range, params.dynatemp_exponent)
        elif params.temperature != 1:
            yield temperature(params.temperature)
        if params.smoothing_factor > 0:
            yield smoothing(params.smoothing_factor, params.smoothing_curve)
        if params.nsigma > 0 and not plain:
            yield nsigma(params.nsigma)


def _reshapes(params: SamplingParams) -> bool:
    """Whether more than a division happens to logits at the temperature."""
    return params.dynatemp_range != 0 or params.smoothing_factor > 0 or params.nsigma > 0


def _without_tokens(step: Step) -> OnCandidates:
    return lambda candidates, _tokens: step(candidates)
