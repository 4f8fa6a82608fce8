"""Perplexity by llama.cpp's definition, so that figures can be checked against another program.

The text is tokenised once with the model's own BOS rule and cut into windows. Each window is evaluated
on its own, its first token replaced by BOS where the model adds one, and only the second half of it is
scored: every token there but the first is predicted from all that stand in front of it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.engine import Engine
from engine.errors import RequestError

_LARGEST = 709.0
"""Beyond this exp leaves the floats: damaged weights can make such losses."""


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The result over the windows so far.

    `perplexity` = exp(mean negative log likelihood); `error` is its standard error; `tokens` are the
    scored ones.
    """

    perplexity: float
    error: float
    windows: int
    total_windows: int
    tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class PerplexityPair:
    """The same windows with theta and without.

    `change` = nkat / baseline - 1, negative where theta helps; `change_error` is its standard error. It comes
    from the differences token by token, and so is much smaller than that of either perplexity: what makes a
    token hard makes it hard for both.
    """

    nkat: Perplexity
    baseline: Perplexity
    change: float
    change_error: float


def measure_perplexity(
    engine: Engine, text: str, *, context: int = 512, windows: int | None = None
) -> Iterator[Perplexity]:
    """Yield the result after each window; the last one is the answer.

    `windows`: at most so many, from the start of the text; None: all. Raises `RequestError` at once for a
    text shorter than one window and for a window that the engine cannot hold.
    """
    return _measure(engine, _cut(engine, text, context, windows))


def compare_perplexity(
    engine: Engine, text: str, *, context: int = 512, windows: int | None = None
) -> Iterator[PerplexityPair]:
    """The same with theta and without, window by window; theta is left as it was.

    Raises what `measure_perplexity` raises, and `ConfigError` for a model without theta.
    """
    engine.check_theta()
    return _compare(engine, _cut(engine, text, context, windows))


class _Mean:
    """The mean of token losses, and the standard error of that mean."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._squares = 0.0

    def add(self, losses: torch.Tensor) -> None:
        self.count += len(losses)
        self._sum += float(losses.sum())
        self._squares += float((losses * losses).sum())

    @property
    def value(self) -> float:
        return self._sum / self.count

    @property
    def error(self) -> float:
        variance = max(0.0, self._squares / self.count - self.value**2)
        return math.sqrt(variance / max(1, self.count - 1))


def _cut(engine: Engine, text: str, context: int, most: int | None) -> list[list[int]]:
    if not 8 <= context <= engine.info.context_length:
        raise RequestError(f"windows must have 8 to {engine.info.context_length} tokens, not {context}")
    tokenizer = engine.tokenizer
    ids = tokenizer.encode(text)
    windows = [ids[start : start + context] for start in range(0, len(ids) - context + 1, context)][:most]
    if not windows:
        raise RequestError(f"the text has {len(ids)} tokens; one window needs {context}")
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        for window in windows:
            window[0] = tokenizer.bos_id
    return windows


def _measure(engine: Engine, windows: list[list[int]]) -> Iterator[Perplexity]:
    mean = _Mean()
    for number, window in enumerate(windows, start=1):
        mean.add(_losses(engine, window))
        yield _result(mean, number, windows)


def _compare(engine: Engine, windows: list[list[int]]) -> Iterator[PerplexityPair]:
    counts = engine.check_theta().enabled
    nkat, baseline, difference = _Mean(), _Mean(), _Mean()
    try:
        for number, window in enumerate(windows, start=1):
            engine.set_theta(enabled=True)
            with_theta = _losses(engine, window)
            engine.set_theta(enabled=False)
            without = _losses(engine, window)
            nkat.add(with_theta)
            baseline.add(without)
            difference.add(with_theta - without)
            ratio = _exp(difference.value)
            yield PerplexityPair(
                _result(nkat, number, windows),
                _result(baseline, number, windows),
                ratio - 1,
                ratio * difference.error,
            )
    finally:
        engine.set_theta(enabled=counts)


def _losses(engine: Engine, window: list[int]) -> torch.Tensor:
    return -engine.log_likelihoods(window, len(window) // 2 + 1).double()


def _result(mean: _Mean, number: int, windows: list[list[int]]) -> Perplexity:
    perplexity = _exp(mean.value)
    return Perplexity(perplexity, perplexity * mean.error, number, len(windows), mean.count, len(windows[0]))


def _exp(x: float) -> float:
    return math.inf if x > _LARGEST else math.exp(x)
