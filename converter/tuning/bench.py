"""Measures one choice of rank, gamma and layers on the engine that will serve it."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from converter.tuning.plan import Layers
from engine.batch import Batch
from engine.benchmark import measure_decode
from engine.engine import Engine
from engine.theta import Theta, ThetaFactors

CONTEXT = 128
"""Tokens that the engine must be able to hold."""
_PROMPT, _NEW_TOKENS, _ITERATIONS = 64, 16, 2


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the search."""

    rank: int
    gamma: float
    layers: Layers = Layers.ALL


class TuningBench:
    """An engine with theta at the highest rank, and the windows that settings are judged on.

    The overhead does not depend on gamma. All that was measured for a rank and a subset of layers is pooled,
    so that it becomes the more exact the more often the search comes back to them. Theta only adds work: a
    reading below zero is noise, and counts as none.
    """

    def __init__(self, engine: Engine, theta: Theta, windows: torch.Tensor) -> None:
        """`windows`: int64 [windows, T]."""
        self._engine = engine
        self._theta = theta
        self._windows = windows
        self._ratios: dict[tuple[int, Layers], list[float]] = {}

    def factors(self, setting: Setting) -> Mapping[str, ThetaFactors]:
        """Theta of a setting, by tensor."""
        # The order of the model's layers: a file may list blk.10 in front of blk.2.
        known = [name for name in self._engine.check_theta().layers if name in self._theta.factors]
        tensors = setting.layers.take(known)
        return {name: self._theta.factors[name].truncated(setting.rank) for name in tensors}

    def remember(self, setting: Setting, ratios: list[float]) -> None:
        """Count ratios that were measured."""
        self._pool(setting).extend(ratios)

    def overhead(self, setting: Setting) -> float:
        """lambda_theta by all that is known; something must be."""
        return max(0.0, statistics.median(self._pool(setting)) - 1)

    def measure(self, setting: Setting) -> list[float]:
        """Time decoding with theta and without; t_nkat / t_baseline of each interleaved group."""
        self._engine.replace_theta(self.factors(setting), setting.gamma)
        times = measure_decode(
            self._engine, prompt_tokens=_PROMPT, new_tokens=_NEW_TOKENS, iterations=_ITERATIONS
        )
        self.remember(setting, times.ratios)
        return times.ratios

    @torch.inference_mode()
    def losses(self, setting: Setting | None) -> Iterator[float]:
        """Mean loss over the windows so far, after each: the logarithm of the perplexity. None: baseline."""
        star = self._engine.check_theta()
        if setting is not None:
            self._engine.replace_theta(self.factors(setting), setting.gamma)
        star.enable(setting is not None)
        total = 0.0
        try:
            for number, ids in enumerate(self._windows):
                first = len(ids) // 2
                logits = self._engine.model(Batch.of_one(ids, range(first, len(ids) - 1)), None)
                total += float(F.cross_entropy(logits, ids[first + 1 :]))
                yield total / (number + 1)
        finally:
            star.enable(True)

    def _pool(self, setting: Setting) -> list[float]:
        return self._ratios.setdefault((setting.rank, setting.layers), [])
