"""Theta that gives back what quantisation lost: the best correction of a low rank, in closed form.

The loss of a correction C is E|(E - C) x|^2 over the inputs x that the layer really sees, where E is the
reference's weight minus the model's. In the metric R = E[x x^T] the best C of rank r is the truncated
singular value decomposition of E R^(1/2), brought back by R^(-1/2) (QERA, Zhang et al. 2024, theorem 1). Its
left singular vectors P are the leading eigenvectors of E R E^T, and C = P P^T E: neither a root nor an
inverse of R is needed.
"""

import torch

_OVERSAMPLING = 12
_ITERATIONS = 40


def best_correction(
    error: torch.Tensor, moment: torch.Tensor, rank: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """u float64 [m, rank] and v float64 [n, rank] of the best C = u v^T for E [m, n] and R [n, n].

    The eigenvectors come from subspace iteration (Halko et al. 2011, algorithm 4.4) from a seeded start.
    `rank` beyond min(m, n) is filled up with zeros.
    """
    error, moment = error.double(), moment.double()
    rows = error.shape[0]
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(rows, min(rows, rank + _OVERSAMPLING), generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(start.to(error.device)).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(_times(error, moment, basis)).Q
    _, vectors = torch.linalg.eigh(basis.T @ _times(error, moment, basis))
    u = basis @ vectors.flip(1)[:, :rank]
    missing = rank - u.shape[1]
    if missing > 0:
        u = torch.nn.functional.pad(u, (0, missing))
    return u, error.T @ u


def _times(error: torch.Tensor, moment: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(E R E^T) columns."""
    return error @ (moment @ (error.T @ columns))
