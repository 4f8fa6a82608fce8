"""The correction of one matrix: B = U diag(s) V^T in INT8."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from engine.errors import ModelFileError
from engine.printable import quoted

_MOST_SCALE = np.finfo(np.float32).max / 128
"""Times any factor, this is finite."""


@dataclass(frozen=True, slots=True)
class ThetaFactors:
    """U int8 (m, r), V int8 (n, r) and one float32 scale a column, (r,), for a matrix (m, n).

    The columns are ordered by energy, so that the first r' of them are theta at rank r'.
    """

    u: npt.NDArray[np.int8]
    v: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]

    @property
    def rank(self) -> int:
        """Columns of each factor."""
        return len(self.scale)

    def matrix(self) -> npt.NDArray[np.float32]:
        """B, float32 (m, n)."""
        product: npt.NDArray[np.float32] = (self.u * self.scale) @ self.v.T.astype(np.float32)
        return product

    def rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """diag(s) U^T (r, m) and V^T (r, n) in float32: B x = (x V diag(s) U^T)^T, one row a component."""
        u: npt.NDArray[np.float32] = np.ascontiguousarray((self.u * self.scale).T)
        return u, np.ascontiguousarray(self.v.T, np.float32)

    def truncated(self, rank: int) -> Self:
        """The first `rank` columns."""
        return type(self)(
            np.ascontiguousarray(self.u[:, :rank]), np.ascontiguousarray(self.v[:, :rank]), self.scale[:rank]
        )

    def check(self, tensor: str, shape: tuple[int, ...], rank: int) -> None:
        """Raise `ModelFileError` unless the factors fit a matrix of that shape and are finite."""
        if len(shape) != 2:
            raise ModelFileError(f"theta corrects {quoted(tensor)}, which is no matrix")
        expected = ((shape[0], rank), (shape[1], rank), (rank,))
        found = (self.u.shape, self.v.shape, self.scale.shape)
        if found != expected:
            raise ModelFileError(
                f"theta of {quoted(tensor)} has the shapes {_list(found)}; "
                f"{_list(expected)} would fit the tensor"
            )
        if self.u.dtype != np.int8 or self.v.dtype != np.int8 or self.scale.dtype != np.float32:
            raise ModelFileError(f"theta of {quoted(tensor)} must be I8, I8 and F32")
        # What is larger makes infinite factors; of NaN no comparison holds.
        if not (np.abs(self.scale) <= _MOST_SCALE).all():
            raise ModelFileError(
                f"theta of {quoted(tensor)} has scales that are not finite, or too large: it is damaged"
            )


def _list(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)
