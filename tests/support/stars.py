"""Tiny models with theta."""

from pathlib import Path

from converter.writer import write_nkat
from engine.gguf import open_gguf
from engine.theta import Theta
from tests.converter.thetas import random_theta


def block_matrices(base: Path) -> list[str]:
    """All matrices of the model's blocks."""
    with open_gguf(base) as file:
        return [
            name for name, info in file.tensors.items() if name.startswith("blk.") and len(info.shape) == 2
        ]


def write_star_model(path: Path, base: Path, rank: int = 4) -> tuple[Path, Theta]:
    """`base` with random theta on all matrices of its blocks, and that theta."""
    with open_gguf(base) as file:
        theta = random_theta(file, block_matrices(base), rank)
        write_nkat(file, theta, path)
    return path, theta
