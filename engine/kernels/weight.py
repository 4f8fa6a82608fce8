"""A packed matrix and theta's correction of it."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Correction:
    """Theta's term of a star product, half_gamma (x v^T) u, for u [r, m], v [r, n], float32.

    `u` holds the scales of theta already. `half_gamma`, 0-dimensional, is read at each product.
    """

    u: torch.Tensor
    v: torch.Tensor
    half_gamma: torch.Tensor


class Weight:
    """A matrix in the form that its kernel set computes with; made by `Kernels.pack`.

    `shape`: (m, n), rows and columns of the matrix A. `bias`: [m], added to each product, or None.
    """

    def __init__(self, shape: tuple[int, int], bias: torch.Tensor | None) -> None:
        self.shape = shape
        self.bias = bias
        self._damaged = False
        self._correction: Correction | None = None

    @property
    def damaged(self) -> bool:
        """Whether values that are not finite have been found in the matrix so far: its file is damaged."""
        return self._damaged

    @property
    def correction(self) -> Correction | None:
        """Theta's part in the products; None: there is none."""
        return self._correction

    def correct(self, correction: Correction | None) -> None:
        """From now on products with the matrix are star products A * x, or, with None, plain ones.

        Kernels may keep the factors in a form of their own; who changes them gives a new `Correction`.
        """
        self._correction = correction
