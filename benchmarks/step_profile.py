"""Where the time of decode steps goes."""

import statistics
import time
from collections.abc import Callable
from typing import Any

from engine.engine import Engine

_PARTS = (
    ("batch", "_batches", "build"),
    ("model", "_runner", "run"),
    ("sampling", "_sampler", "sample"),
    ("output", None, "_accept"),
)
"""Our name of a part, the engine's attribute that has it (None: itself), and its method."""


def profile_steps(engine: Engine, steps: int) -> dict[str, float]:
    """Microseconds of each part of a step, the median of so many; `other` is what no part accounts for.

    Requests must be under way. Wraps the engine's own parts, so that the engine is of no use afterwards.
    """
    spent: dict[str, list[float]] = {
        name: [] for name in (*(part for part, _, _ in _PARTS), "other", "whole")
    }
    for name, owner, method in _PARTS:
        holder = engine if owner is None else getattr(engine, owner)
        setattr(holder, method, _timed(getattr(holder, method), spent[name]))
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        whole = time.perf_counter() - start
        spent["whole"].append(whole)
        spent["other"].append(whole - sum(spent[name][-1] for name, _, _ in _PARTS))
    return {name: 1e6 * statistics.median(seconds) for name, seconds in spent.items()}


def _timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    return timed
