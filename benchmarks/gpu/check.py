"""One comparison of a kernel with float64, and how a group of them is carried out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.gpu.settings import Figures


@dataclass(frozen=True, slots=True)
class Check:
    """A kernel's result against what it should be.

    `error`: gives the error in the unit of `tolerance`, by default the norm of the difference over the norm
    of what it should be. NaN never passes.
    """

    name: str
    tolerance: float
    error: Callable[[], float]

    def run(self) -> Figures:
        """`error` (None: it is no number), `tolerance`, `passed`; `failure`, where the kernel did not run."""
        said: Figures = {"error": None, "tolerance": self.tolerance, "passed": False}
        try:
            error = self.error()
        except Exception as failure:  # whatever ails one kernel, the others are still to be checked
            return said | {"failure": f"{type(failure).__name__}: {failure}"[:500]}
        finite = abs(error) < float("inf")
        return said | {"error": error if finite else None, "passed": finite and error <= self.tolerance}


def run_checks(checks: Iterator[Check]) -> Iterator[Figures]:
    """Each one's figures, as soon as they are known."""
    for check in checks:
        yield {"checks": {check.name: check.run()}}


def distance(found: torch.Tensor, should: torch.Tensor) -> float:
    """The norm of the error over the norm of what it should be, in float64; 0 if both are."""
    error = float(torch.linalg.vector_norm(found.double() - should.double()))
    return error / float(torch.linalg.vector_norm(should.double())) if error else error


def largest(found: torch.Tensor, should: torch.Tensor) -> float:
    """The largest difference of two elements; NaN if there is one."""
    return float((found.double() - should.double()).abs().max())
