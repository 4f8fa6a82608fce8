"""Embeddings: rows of a packed matrix by their numbers."""

import torch

from engine.kernels.cuda.dequantize import dequantize_rows
from engine.kernels.cuda.formats import FLOATS
from engine.kernels.cuda.planes import Planes


def embed(planes: Planes, ids: torch.Tensor) -> torch.Tensor:
    """The rows named by `ids` int64 [T], which must exist, float32 [T, n]. Theta has no part in them."""
    if planes.type in FLOATS:
        return planes.low[ids].float()
    return dequantize_rows(planes, ids, 0, len(ids), torch.float32)
