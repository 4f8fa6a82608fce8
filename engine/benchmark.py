"""How fast a model decodes, and what theta costs: timed on the engine's own steps. Prints nothing.

Theta on and theta off are timed in one process on one loaded model, step by step in the order on, off, off,
on. Each such group gives one ratio, in which a steady drift of the machine cancels; the overhead is the
median of the ratios, which a burst of noise does not move.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.collector import without_collector
from engine.engine import Engine
from engine.errors import RequestError
from engine.types import GenerationRequest, SamplingParams, TokenPrompt

Report = Callable[[int, int], None]
"""Told how many iterations are done, and of how many."""

_GROUP = (True, False, False, True)
_WARM_UP_GROUPS = 2
_NAME = "benchmark"


@dataclass(frozen=True, slots=True)
class DecodeTimes:
    """Seconds of wall clock, in the order they were timed.

    `baseline` and `nkat`: of each step that made one token for one request, without theta and with it; `nkat`
    is empty for a model that has none, else `nkat[2 i : 2 i + 2]` stand around `baseline[2 i : 2 i + 2]`.
    `prefill`: from a prompt to its first token, theta as it was set, one for each iteration.
    """

    baseline: tuple[float, ...]
    nkat: tuple[float, ...]
    prefill: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """t_nkat / t_baseline of each group."""
        return _ratios(self.nkat, self.baseline)

    @property
    def overhead(self) -> float | None:
        """lambda_theta: the median ratio minus 1; None without theta."""
        return statistics.median(self.ratios) - 1 if self.nkat else None

    @property
    def overhead_quartiles(self) -> tuple[float, float] | None:
        """Between them lies the overhead of the middle half of all groups; None without theta."""
        if not self.nkat:
            return None
        ratios = self.ratios
        if len(ratios) < 2:
            return ratios[0] - 1, ratios[0] - 1
        lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return lower - 1, upper - 1


@dataclass(frozen=True, slots=True)
class PrefillTimes:
    """Seconds from a new prompt to its first token, in the order they were timed, in pairs as decoding is."""

    baseline: tuple[float, ...]
    nkat: tuple[float, ...]

    @property
    def overhead(self) -> float:
        """The median of t_nkat / t_baseline, minus 1."""
        return statistics.median(_ratios(self.nkat, self.baseline)) - 1


def measure_prefill(
    engine: Engine, *, prompt_tokens: int, iterations: int, report: Report | None = None
) -> PrefillTimes:
    """Time prompts with theta on, off, off, on, in each of the iterations; the engine must have theta.

    Needs and leaves what `measure_decode` does. Raises `ConfigError` for a model without theta.
    """
    star, rng = engine.check_theta(), random.Random(1)
    engine.kernels.settle()
    counts = star.enabled
    steps: list[tuple[bool, float]] = []
    with without_collector():  # its turns would fall on single steps
        _generate(engine, _prompt(engine, rng, prompt_tokens), ())
        for number in range(iterations):
            for on in _GROUP:
                star.enable(on)
                seconds, _ = _generate(engine, _prompt(engine, rng, prompt_tokens), ())
                steps.append((on, seconds))
            if report is not None:
                report(number + 1, iterations)
    engine.set_theta(enabled=counts)
    return PrefillTimes(
        baseline=tuple(seconds for on, seconds in steps if not on),
        nkat=tuple(seconds for on, seconds in steps if on),
    )


def _ratios(nkat: tuple[float, ...], baseline: tuple[float, ...]) -> list[float]:
    return [sum(nkat[at : at + 2]) / sum(baseline[at : at + 2]) for at in range(0, len(nkat), 2)]


def measure_decode(
    engine: Engine,
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    iterations: int = 5,
    report: Report | None = None,
) -> DecodeTimes:
    """Time `new_tokens` steps behind a prompt, with theta and without, in each of the iterations.

    `new_tokens` counts for either alone and is made even. The prompts are random and seeded; a first
    generation goes untimed. The engine must be idle, and is as before afterwards, but for its cached
    prefixes. Raises `RequestError` for what does not fit the context.
    """
    assert not engine.has_work, "the benchmark wants the engine for itself"
    group = _GROUP if engine.star is not None else _GROUP[1:3]
    groups = -(-new_tokens // 2)
    rng = random.Random(0)
    needed = prompt_tokens + 1 + len(group) * max(groups, _WARM_UP_GROUPS)
    if prompt_tokens < 1 or new_tokens < 1 or iterations < 1:
        raise RequestError("a benchmark needs at least one prompt token, one new token and one iteration")
    if needed > engine.info.context_length:
        raise RequestError(
            f"a prompt of {prompt_tokens} tokens and {needed - prompt_tokens} behind it do not fit the "
            f"context of {engine.info.context_length}"
        )
    engine.kernels.settle()
    prefill: list[float] = []
    steps: list[tuple[bool, float]] = []
    with without_collector():  # its turns would fall on single steps
        _generate(engine, _prompt(engine, rng, prompt_tokens), group * _WARM_UP_GROUPS)
        for number in range(iterations):
            gc.collect()
            prompt = _prompt(engine, rng, prompt_tokens)
            seconds, timed = _generate(engine, prompt, group * groups)
            prefill.append(seconds)
            steps += timed
            if report is not None:
                report(number + 1, iterations)
    return DecodeTimes(
        baseline=tuple(seconds for on, seconds in steps if not on),
        nkat=tuple(seconds for on, seconds in steps if on),
        prefill=tuple(prefill),
    )


def _prompt(engine: Engine, rng: random.Random, tokens: int) -> tuple[int, ...]:
    # A new one each time, so that no prefix of it is cached.
    return tuple(rng.randrange(engine.info.vocab_size) for _ in range(tokens))


def _generate(
    engine: Engine, prompt: tuple[int, ...], switches: Sequence[bool]
) -> tuple[float, list[tuple[bool, float]]]:
    """Seconds to the first token, then those of one step for each switch, theta set as it says."""
    star = engine.star
    counts = star is not None and star.enabled
    sampling = SamplingParams(temperature=0.0, seed=0)
    request = GenerationRequest(_NAME, TokenPrompt(prompt), len(switches) + 1, sampling, ignore_eos=True)
    engine.add(engine.prepare(request))
    times: list[tuple[bool, float]] = []
    try:
        start = time.perf_counter()
        while not any(event.token_ids for event in engine.step()):
            pass
        prefill = time.perf_counter() - start
        for on in switches:
            if star is not None:
                star.enable(on)
            start = time.perf_counter()
            engine.step()
            times.append((on, time.perf_counter() - start))
    finally:
        engine.abort(_NAME)
        engine.step()
        if star is not None:
            # Not the star's own switch: the prefixes that are cached now were computed with both.
            engine.set_theta(enabled=counts)
    return prefill, times
