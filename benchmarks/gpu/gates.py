"""What the GPU engine is held to: figures of a run against their bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PERPLEXITY = 0.003
"""Largest change of the perplexity against the processor's."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One figure and its bound. `value` None: it was not measured, and the gate is not passed."""

    name: str
    value: float | None
    bound: float
    most: bool = False
    """The bound is the most that passes, not the least."""

    @property
    def passed(self) -> bool:
        """Whether the figure is there and within its bound."""
        if self.value is None:
            return False
        return self.value <= self.bound if self.most else self.value >= self.bound


def gates(figures: Mapping[str, Any]) -> list[Gate]:
    """All gates of a run. Speeds are those of a 7B model in Q4_K_M on a H200 or H100."""
    one, many = (_found(figures, "decode", count, "tokens_per_second") for count in ("1", "32"))
    prefill = _found(figures, "prefill", "2048", "tokens_per_second")
    found = [
        Gate("decode of one stream, tokens/s", one, 300),
        Gate("GEMV, bandwidth over the copy's", _found(figures, "gemv_bandwidth_fraction"), 0.7),
        Gate("decode of 32 streams over one's", many / one if many is not None and one else None, 8),
        Gate("prefill of 2048, tokens/s", prefill, 15000),
        Gate("theta, added to a step's time", _found(figures, "theta", "decode_overhead"), 0.03, most=True),
        Gate("recordings over eager steps, speed", _found(figures, "graphs", "speedup"), 1.3),
    ]
    change = _found(figures, "perplexity", "change")
    if change is not None:
        found.append(Gate("perplexity, change to the processor's", abs(change), _PERPLEXITY, most=True))
    return found


def failed_checks(figures: Mapping[str, Any]) -> list[str]:
    """Names of the kernel checks that were not passed."""
    return [name for name, check in figures.get("checks", {}).items() if not check["passed"]]


def gates_as_json(all_gates: Sequence[Gate]) -> dict[str, Any]:
    """By name: value, bound and whether it was passed."""
    return {
        gate.name: {"value": gate.value, "most" if gate.most else "least": gate.bound, "passed": gate.passed}
        for gate in all_gates
    }


def _found(figures: Mapping[str, Any], *path: str) -> float | None:
    """The number below these names; None where there is none."""
    value: Any = figures
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return float(value)
