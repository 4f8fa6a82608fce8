"""Theta by the letter of the NKAT guide: from the weights alone."""

import numpy as np
import numpy.typing as npt


def svd_theta(
    weight: npt.NDArray[np.float32], rank: int, target_size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Factors u (m, rank) and v (n, rank) of B = u v^T for a weight (m, n).

    The leading square block of A, of at most `target_size`, is cut to its `rank` strongest singular
    components, and its transpose subtracted. The difference has up to 2 * rank components, of which the
    strongest `rank` are kept: the singular values of an antisymmetric matrix come in pairs, so that an even
    rank leaves it antisymmetric. Zeros fill u and v up beyond the block.

    It does not help, and nothing says that it should: the term is made of A's own strongest directions and of
    nothing that A lacks, neither what quantisation lost nor what the text would ask for. It adds to the
    output a disturbance of the order of the output itself. It stays because the guide describes it, and is
    measured like the other methods.
    """
    rows, columns = weight.shape
    size = min(target_size, rows, columns)
    left, values, right = np.linalg.svd(weight[:size, :size].astype(np.float64))
    cut = left[:, :rank] * values[:rank] @ right[:rank]
    left, values, right = np.linalg.svd(cut - cut.T)
    u, v = np.zeros((rows, rank)), np.zeros((columns, rank))
    kept = min(rank, size)
    u[:size, :kept] = left[:, :kept] * values[:kept]
    v[:size, :kept] = right[:kept].T
    return u, v
