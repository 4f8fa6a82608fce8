"""Tiny models, texts and conversions that take a moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from converter.job import ConversionJob
from converter.moments import ObservedKernels
from converter.trainable import TrainableModel
from engine.architectures import open_model
from tests.support.gguf_files import write_llama

CPU = torch.device("cpu")
TEXT = "The hello world and the world is to hello of a thing, the other thing is her and hers.\n" * 24
SIZES: dict[str, Any] = {"n_embd": 32, "n_ff": 64, "n_layers": 2}


@dataclass(frozen=True)
class Bench:
    """A model in Q4_0, the same in F32, and a text."""

    base: Path
    reference: Path
    text: Path

    def job(self, output: Path, **changes: Any) -> ConversionJob:
        values: dict[str, Any] = {
            "input": self.base,
            "output": output,
            "calibration": (self.text,),
            "steps": 3,
            "window": 32,
            "windows": 2,
            "eval_windows": 2,
            "evaluate": False,  # reading the texts for it takes longer than all the rest
            "device": "cpu",
            "threads": 1,
        }
        return ConversionJob(**values | changes)

    def arguments(self, output: Path, *more: str) -> list[str]:
        """The same job as flags of `convert`, but for what `more` adds."""
        flags = ["--input", str(self.base), "--output", str(output), "--calibration", str(self.text)]
        flags += ["--steps", "3", "--ctx", "32", "--windows", "2", "--eval-windows", "2"]
        return [*flags, "--device", "cpu", "--threads", "1", *more]


def write_bench(folder: Path, *, tied: bool = True) -> Bench:
    base = write_llama(folder / "base.gguf", type="Q4_0", tied=tied, **SIZES)
    reference = write_llama(folder / "reference.gguf", type="F32", tied=tied, **SIZES)
    text = folder / "text.txt"
    text.write_text(TEXT)
    return Bench(base, reference, text)


def trainable(
    path: Path, *, rank: int = 4, positions: int = 32, seed: int = 0, tensors: Sequence[str] | None = None
) -> TrainableModel:
    """The model of a file, with theta on all matrices of its blocks."""
    file = open_model(path)
    selected = tensors or [
        name for name, shape in file.config.tensors() if len(shape) == 2 and name.startswith("blk.")
    ]
    kernels = ObservedKernels(CPU, dense_bytes=1 << 30)
    return TrainableModel(file, kernels, selected, rank=rank, gamma=0.97, positions=positions, seed=seed)


def random_windows(count: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 250, (count, length), generator=torch.Generator().manual_seed(seed))


def disturb(model: TrainableModel, deviation: float = 0.1, seed: int = 0) -> None:
    """Give theta an effect: a random U, in place."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.layers.values():
        layer.u.copy_(torch.randn(layer.u.shape, generator=generator) * deviation)


def ignore(stage: str, done: int, total: int, note: str) -> None:
    """Progress that nobody looks at."""
