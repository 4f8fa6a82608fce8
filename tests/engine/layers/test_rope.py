import math

import numpy as np
import pytest
import torch

from engine.architectures.rope_config import RopeConfig
from engine.kernels import Rotation
from engine.layers import rotation
from tests.engine.models.numpy_llama import yarn_angle

CPU = torch.device("cpu")
POSITIONS = 300


def angles(base: float, dimensions: int) -> np.ndarray:
    """The unscaled rotation: positions times base^(-2i/d)."""
    return np.array(
        [[p * base ** (-2 * i / dimensions) for i in range(dimensions // 2)] for p in range(POSITIONS)]
    )


def check(turn: Rotation, expected: np.ndarray, magnitude: float = 1.0) -> None:
    np.testing.assert_allclose(turn.cos.numpy(), np.cos(expected) * magnitude, atol=1e-6)
    np.testing.assert_allclose(turn.sin.numpy(), np.sin(expected) * magnitude, atol=1e-6)


@pytest.mark.parametrize(("base", "dimensions"), [(10000.0, 8), (500000.0, 64), (1e6, 2)])
def test_plain(base: float, dimensions: int) -> None:
    check(rotation(RopeConfig(dimensions, base), POSITIONS, CPU), angles(base, dimensions))


def test_a_row_for_each_position() -> None:
    turn = rotation(RopeConfig(8), POSITIONS, CPU)
    assert turn.cos.shape == turn.sin.shape == (POSITIONS, 4)
    assert turn.cos.dtype == turn.sin.dtype == torch.float32
    assert turn.cos[0].tolist() == [1.0] * 4
    assert torch.equal(turn.cos[7], rotation(RopeConfig(8), 8, CPU).cos[7])


def test_linear_slows_every_pair() -> None:
    config = RopeConfig(16, scaling="linear", factor=4.0)
    check(rotation(config, POSITIONS, CPU), angles(10000.0, 16) / 4)


def test_llama3_divides_by_the_files_tensor() -> None:
    base, dimensions, factor, low, high, original = 500000.0, 64, 8.0, 1.0, 4.0, 8192
    divisors = []
    for i in range(dimensions // 2):
        # the rule by which converters write the tensor
        wavelength = 2 * math.pi * base ** (2 * i / dimensions)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    assert 1 < len(set(divisors)) < dimensions // 2
    tensor = torch.tensor(divisors)
    turn = rotation(RopeConfig(dimensions, base), POSITIONS, CPU, tensor)
    check(turn, angles(base, dimensions) / tensor.double().numpy())


@pytest.mark.parametrize(
    ("dimensions", "base", "factor", "original"),
    [(64, 10000.0, 4.0, 2048), (128, 1e6, 4.0, 32768), (16, 10000.0, 32.0, 64), (128, 5e5, 1.5, 8192)],
)
@pytest.mark.parametrize("betas", [(32.0, 1.0), (16.0, 2.0)])
def test_yarn(dimensions: int, base: float, factor: float, original: int, betas: tuple[float, float]) -> None:
    fast, slow = betas
    config = RopeConfig(dimensions, base, "yarn", factor, original, 0.9, fast, slow)
    plain = angles(base, dimensions)
    scaled = [
        [
            yarn_angle(
                plain[p, i], i, dimensions, base, factor, original,
                beta_fast=fast, beta_slow=slow, attention_factor=0.9,
            )
            for i in range(dimensions // 2)
        ]
        for p in range(POSITIONS)
    ]  # fmt: skip
    expected = np.array(scaled)
    kept = expected[1, :, 0] / plain[1]
    assert kept.min() == pytest.approx(1 / factor)
    check(rotation(config, POSITIONS, CPU), expected[..., 0], magnitude=expected[0, 0, 1])
