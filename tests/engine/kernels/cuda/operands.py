"""What tests give to the products on cards: packed matrices with their values, and rounded activations."""

from collections.abc import Sequence

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize

from engine.gguf import GGMLType
from engine.kernels.cuda.planes import pack_planes
from engine.kernels.cuda.weight import CudaWeight
from tests.engine.kernels.operands import correction
from tests.support.gguf_files import random_tensor

Values = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def cuda_weight(
    name: str,
    shape: tuple[int, int],
    device: torch.device,
    *,
    seed: int = 3,
    bias: bool = False,
    rank: int = 0,
) -> tuple[CudaWeight, Values]:
    """A random matrix of one type and what the reference package takes it for."""
    tensor = random_tensor(np.random.default_rng(seed), name, shape)
    data = torch.from_numpy(np.ascontiguousarray(tensor.data).view(np.uint8).reshape(shape[0], -1))
    values = dequantize(tensor.data, GGMLQuantizationType[name]).reshape(shape).astype(np.float64)
    added = torch.randn(shape[0], generator=torch.Generator().manual_seed(seed)) if bias else None
    weight = CudaWeight(pack_planes(data.to(device), GGMLType[name], shape), added)
    if rank:
        weight.correct(correction(seed, rank, shape))
    return weight, values


def star_product(weight: CudaWeight, values: Values, x: Values, exact: Values) -> Values:
    """A * x plus bias in float64: the matrix meets `x` [T, n], theta the unrounded rows `exact`."""
    y = x @ values.T
    if weight.bias is not None:
        y = y + weight.bias.double().cpu().numpy()
    theta = weight.correction
    if theta is not None:
        y = y + float(theta.half_gamma) * (exact @ theta.v.double().numpy().T) @ theta.u.double().numpy()
    return y


def silu(y: Values) -> Values:
    """y times its sigmoid."""
    found: Values = y / (1 + np.exp(-y))
    return found


def rows(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """Activations whose groups have scales far apart."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.randn(*shape[:-1], shape[-1] // 32, 1, generator=generator).exp()
    return (scales * torch.randn(*shape[:-1], shape[-1] // 32, 32, generator=generator)).reshape(*shape)
