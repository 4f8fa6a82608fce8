"""Models in stages, for tests: several kernel sets of the processor stand for several devices."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.architectures import open_model
from engine.config import EngineConfig
from engine.engine import Engine
from engine.kernels import Kernels, select_kernels
from engine.kernels.split import SplitKernels, Stage
from engine.models import Loader, Model, load_model
from engine.theta import read_theta

CPU = torch.device("cpu")
BLOCK = 16
Stages = Sequence[tuple[Kernels, int]]


def kernels(name: str) -> Kernels:
    """A kernel set of its own."""
    return select_kernels(CPU, dense_bytes=2**30, threads=1, name=name)


def split_model(path: Path, stages: Stages, positions: int = 256) -> Model:
    """The model of a file, with its theta if it has any, in stages of so many blocks."""
    file = open_model(path)
    split = SplitKernels([Stage(own, blocks) for own, blocks in stages], BLOCK)
    model = load_model(file, Loader(file, split, read_theta(file.file, file.file.tensors)), positions)
    split.settle()
    return model


def engines(path: Path, stages: Callable[[], Stages], name: str, **others: Any) -> tuple[Engine, Engine]:
    """An engine with the model on one kernel set of a name, and one like it with the model in stages."""
    fields: dict[str, Any] = {"context_length": 256, "device": "cpu", "threads": 1} | others
    config = EngineConfig(path, kernels=name, **fields)
    whole = Engine.load(config)
    model = split_model(path, stages(), fields["context_length"])
    return whole, Engine(config, model, whole.tokenizer, whole.info)
