"""Random theta for the tests."""

from collections.abc import Sequence

import numpy as np

from engine.gguf import GGUFFile
from engine.theta import Theta, ThetaFactors, base_sha256

TENSORS = ("blk.0.attn_q.weight", "blk.1.ffn_down.weight")


def random_factors(shape: tuple[int, ...], rank: int, seed: int = 0) -> ThetaFactors:
    rng = np.random.default_rng(seed)
    return ThetaFactors(
        rng.integers(-127, 128, (shape[0], rank), np.int8),
        rng.integers(-127, 128, (shape[1], rank), np.int8),
        rng.uniform(1e-7, 1e-5, rank).astype(np.float32),
    )


def random_theta(
    file: GGUFFile, tensors: Sequence[str] = TENSORS, rank: int = 4, seed: int = 0, gamma: float = 0.97
) -> Theta:
    factors = {name: random_factors(file.tensors[name].shape, rank, seed) for name in tensors}
    notes = {"nkat.calibration.steps": 50, "nkat.report.ppl_after": 17.25, "nkat.report.helps": True}
    return Theta(factors, rank, gamma, "train", base_sha256(file), notes)


def same_theta(one: Theta, other: Theta | None) -> bool:
    """Whether both hold the same values, in whatever order."""
    if other is None or one.factors.keys() != other.factors.keys():
        return False
    fields = ("rank", "gamma", "method", "base_sha256", "notes")
    return all(getattr(one, field) == getattr(other, field) for field in fields) and all(
        np.array_equal(getattr(factors, part), getattr(other.factors[name], part))
        for name, factors in one.factors.items()
        for part in ("u", "v", "scale")
    )
