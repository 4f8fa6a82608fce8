"""What `nkat bench` and `nkat compare` find out, under the names of their JSON. Prints nothing."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from engine.benchmark import DecodeTimes, measure_decode, measure_prefill
from engine.engine import Engine
from engine.memory import peak_bytes
from engine.perplexity import compare_perplexity, measure_perplexity
from engine.text import Text
from engine.theta.score import tpe, tpe_class

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many parts of it are done, and of how many."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure. Counts are tokens, except for iterations and windows."""

    seq_len: int = 128
    """Tokens of the prompt, behind which decoding is timed."""
    new_tokens: int = 32
    """Decode steps in each iteration; with theta, as many again without it."""
    iterations: int = 5
    text: Text | None = None
    """What perplexity is measured on; None leaves it out."""
    windows: int = 8
    """At most so many windows of the text."""
    context: int = 512
    """Tokens of one window."""

    @property
    def context_length(self) -> int:
        """The context that the engine must have for this plan."""
        decode = self.seq_len + 1 + 4 * max(2, -(-self.new_tokens // 2))
        return decode if self.text is None else max(decode, self.context)


@dataclass(frozen=True, slots=True)
class BenchReport:
    """One engine as it was set. What was not measured is None."""

    model: str
    device: str
    kernels: str
    threads: int
    theta_enabled: bool
    rank: int | None
    gamma: float | None
    seq_len: int
    new_tokens: int
    iterations: int
    tokens_per_second: float
    """Of one request, decoding: 1 over the median step."""
    avg_latency_ms: float
    """The median step, one token each."""
    prefill_tokens_per_second: float
    load_seconds: float
    memory_bytes: int
    """At the most, while loading and decoding; see `engine.memory.peak_bytes`."""
    overhead_percentage: float | None
    """100 lambda_theta, measured in the same run; None without theta."""
    text: str | None
    windows: int | None
    perplexity: float | None
    perplexity_error: float | None
    tpe: float | None
    tpe_class: str | None


@dataclass(frozen=True, slots=True)
class CompareReport:
    """Theta on and off, in one process on one loaded model. What was not measured is None."""

    model: str
    device: str
    kernels: str
    threads: int
    rank: int
    gamma: float
    seq_len: int
    new_tokens: int
    iterations: int
    nkat_tokens_per_second: float
    baseline_tokens_per_second: float
    lambda_theta: float
    """t_nkat / t_baseline - 1 of a decoded token, the median of interleaved groups."""
    overhead_percentage: float
    """100 lambda_theta."""
    overhead_quartiles: tuple[float, float]
    """Percent; between them lies the middle half of all groups."""
    prefill_tokens_per_second: float
    """With theta."""
    prefill_overhead_percentage: float
    """100 (t_nkat / t_baseline - 1) of a prompt, the median of interleaved groups."""
    load_seconds: float
    memory_bytes: int
    theta_bytes: int
    """Of that, theta's factors."""
    text: str | None
    windows: int | None
    nkat_perplexity: float | None
    nkat_perplexity_error: float | None
    baseline_perplexity: float | None
    baseline_perplexity_error: float | None
    estimated_perplexity_improvement: float | None
    """Measured: 100 (ppl_nkat / ppl_baseline - 1), so that -6.4 means 6.4 % lower, which is better."""
    estimated_perplexity_improvement_error: float | None
    nkat_tpe: float | None
    nkat_tpe_class: str | None
    baseline_tpe: float | None
    baseline_tpe_class: str | None


def run_bench(engine: Engine, load_seconds: float, plan: BenchPlan, progress: Progress) -> BenchReport:
    """Measure the engine as it is set. Raises what `measure_decode` and `measure_perplexity` raise."""
    text = plan.text
    scores = (
        None
        if text is None
        else measure_perplexity(engine, text.content, context=plan.context, windows=plan.windows)
    )
    times, memory = _decode(engine, plan, progress)
    result = None
    for result in scores or ():
        progress("perplexity", result.windows, result.total_windows)
    star = engine.star if engine.star is not None and engine.star.enabled else None
    own = times.baseline if star is None else times.nkat
    perplexity = None if result is None else _finite(result.perplexity)
    score = _score(perplexity, None if star is None else times.overhead)
    return BenchReport(
        model=engine.info.name,
        device=engine.kernels.place,
        kernels=engine.kernels.name,
        threads=engine.kernels.threads,
        theta_enabled=star is not None,
        rank=None if star is None else star.rank,
        gamma=None if star is None else star.gamma,
        seq_len=plan.seq_len,
        new_tokens=plan.new_tokens,
        iterations=plan.iterations,
        tokens_per_second=1 / statistics.median(own),
        avg_latency_ms=1000 * statistics.median(own),
        prefill_tokens_per_second=plan.seq_len / statistics.median(times.prefill),
        load_seconds=load_seconds,
        memory_bytes=memory,
        overhead_percentage=None if star is None else _percent(times.overhead),
        text=None if text is None else text.name,
        windows=None if result is None else result.windows,
        perplexity=perplexity,
        perplexity_error=None if result is None else _finite(result.error),
        tpe=score,
        tpe_class=None if score is None else tpe_class(score),
    )


def run_compare(engine: Engine, load_seconds: float, plan: BenchPlan, progress: Progress) -> CompareReport:
    """Measure with theta and without. Raises as `run_bench`, and `ConfigError` for a model without theta."""
    star, text = engine.check_theta(), plan.text
    scores = (
        None
        if text is None
        else compare_perplexity(engine, text.content, context=plan.context, windows=plan.windows)
    )
    times, memory = _decode(engine, plan, progress)
    overhead, quartiles = times.overhead, times.overhead_quartiles
    assert overhead is not None, "there is theta"
    assert quartiles is not None, "there is theta"
    prefill = measure_prefill(
        engine,
        prompt_tokens=plan.seq_len,
        iterations=plan.iterations,
        report=lambda done, total: progress("prompts", done, total),
    )
    pair = None
    for pair in scores or ():
        progress("perplexity", pair.nkat.windows, pair.nkat.total_windows)
    nkat = None if pair is None else _finite(pair.nkat.perplexity)
    baseline = None if pair is None else _finite(pair.baseline.perplexity)
    nkat_score, baseline_score = _score(nkat, overhead), _score(baseline, None)
    return CompareReport(
        model=engine.info.name,
        device=engine.kernels.place,
        kernels=engine.kernels.name,
        threads=engine.kernels.threads,
        rank=star.rank,
        gamma=star.gamma,
        seq_len=plan.seq_len,
        new_tokens=plan.new_tokens,
        iterations=plan.iterations,
        nkat_tokens_per_second=1 / statistics.median(times.nkat),
        baseline_tokens_per_second=1 / statistics.median(times.baseline),
        lambda_theta=overhead,
        overhead_percentage=100 * overhead,
        overhead_quartiles=(100 * quartiles[0], 100 * quartiles[1]),
        prefill_tokens_per_second=plan.seq_len / statistics.median(prefill.nkat),
        prefill_overhead_percentage=100 * prefill.overhead,
        load_seconds=load_seconds,
        memory_bytes=memory,
        theta_bytes=star.bytes,
        text=None if text is None else text.name,
        windows=None if pair is None else pair.nkat.windows,
        nkat_perplexity=nkat,
        nkat_perplexity_error=None if pair is None else _finite(pair.nkat.error),
        baseline_perplexity=baseline,
        baseline_perplexity_error=None if pair is None else _finite(pair.baseline.error),
        estimated_perplexity_improvement=None if pair is None else _percent(pair.change),
        estimated_perplexity_improvement_error=None if pair is None else _percent(pair.change_error),
        nkat_tpe=nkat_score,
        nkat_tpe_class=None if nkat_score is None else tpe_class(nkat_score),
        baseline_tpe=baseline_score,
        baseline_tpe_class=None if baseline_score is None else tpe_class(baseline_score),
    )


def _decode(engine: Engine, plan: BenchPlan, progress: Progress) -> tuple[DecodeTimes, int]:
    """The times, and the most memory up to then: scoring a text needs more than serving does."""
    times = measure_decode(
        engine,
        prompt_tokens=plan.seq_len,
        new_tokens=plan.new_tokens,
        iterations=plan.iterations,
        report=lambda done, total: progress("decoding", done, total),
    )
    return times, peak_bytes(engine.kernels.device)


def _score(perplexity: float | None, overhead: float | None) -> float | None:
    return None if perplexity is None else tpe(perplexity, overhead or 0.0)


def _percent(share: float | None) -> float | None:
    return None if share is None else _finite(100 * share)


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None
