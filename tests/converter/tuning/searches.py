"""Engines to measure settings on, and searches that take a moment."""

from pathlib import Path
from typing import Any

import torch

from converter.tuning.bench import TuningBench
from converter.tuning.plan import Mode, TuningPlan
from converter.writer import write_sidecar
from engine.config import EngineConfig
from engine.engine import Engine
from engine.gguf import open_gguf
from engine.theta import Theta, open_theta
from tests.converter.jobs import Bench, random_windows
from tests.converter.thetas import random_theta
from tests.support.stars import block_matrices

WINDOWS = random_windows(4, 16)


def random_sidecar(path: Path, model: Path) -> Theta:
    """Theta of rank 8 on all matrices of the blocks, as a search reads it from its folder."""
    with open_gguf(model) as file:
        write_sidecar(random_theta(file, block_matrices(model), rank=8), path, "llama")
        theta = open_theta(file, path)
    assert theta is not None
    return theta


def load(model: Path, sidecar: Path) -> Engine:
    config = EngineConfig(
        model, context_length=128, kv_tokens=128, device="cpu", threads=1, theta_path=sidecar
    )
    return Engine.load(config)


def tuning_bench(folder: Path, model: Path, windows: torch.Tensor = WINDOWS) -> TuningBench:
    theta = random_sidecar(folder / "theta.bin", model)
    return TuningBench(load(model, folder / "theta.bin"), theta, windows)


def plan(bench: Bench, folder: Path, trials: int = 3, **changes: Any) -> TuningPlan:
    """A search over rank and gamma; `changes` of the plan, or of its job."""
    own: dict[str, Any] = {"mode": Mode.CUSTOM, "target_rank": None, "resume": False}
    own |= {key: changes.pop(key) for key in own if key in changes}
    rank = own["target_rank"] or 8
    job: dict[str, Any] = {
        "theta_only": True,
        "rank": rank,
        "choosing_windows": 2,
        "evaluate": True,
        "eval_text": bench.text,
        "eval_windows": 2,
        "learning_rate": 0.02,
    }
    output = folder / f"theta_rank{rank}.bin"
    return TuningPlan(bench.job(output, **job | changes), folder, trials=trials, **own)
