"""What an interrupted conversion goes on from."""

import pickle
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import torch

from converter.atomic import replacing
from converter.trainable import TrainableModel
from engine.errors import ConfigError


@dataclass(slots=True)
class Checkpoint:
    """How far a job is.

    `job` names all that the result depends on; `blocks` have been derived, `steps` trained; `factors`:
    U [r, m] and V [r, n] by tensor, float32; `adam`: the optimiser's state, empty before the first step.
    """

    job: dict[str, Any]
    blocks: int = 0
    steps: int = 0
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    adam: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, job: dict[str, Any]) -> Self:
        """Read the checkpoint of `job`. Raises `ConfigError` for a damaged one, and for another job's."""
        try:
            # `weights_only`: a checkpoint may hold tensors and plain values, never code to run.
            values = torch.load(path, map_location="cpu", weights_only=True)
            checkpoint = cls(**values)
        except (OSError, RuntimeError, EOFError, TypeError, ValueError, pickle.UnpicklingError):
            raise ConfigError(
                f"{path}: is no checkpoint, or a damaged one; delete it and start without --resume"
            ) from None
        different = sorted(key for key in job if checkpoint.job.get(key) != job[key])
        if different:
            raise ConfigError(
                f"{path}: was left by another conversion (different: {', '.join(different)}); "
                "repeat that one's flags, or delete it and start without --resume"
            )
        return checkpoint

    def save(self, path: Path) -> None:
        """Write it as a whole or not at all. Raises `ConfigError`."""
        buffer = BytesIO()
        torch.save(asdict(self), buffer)
        with replacing(path, buffer.tell()) as file:
            file.write(buffer.getbuffer())

    def take(self, model: TrainableModel) -> None:
        """Remember the model's factors."""
        self.factors = {
            name: (layer.u.detach().cpu().clone(), layer.v.detach().cpu().clone())
            for name, layer in model.layers.items()
        }

    def give(self, model: TrainableModel) -> None:
        """Put the remembered factors into the model."""
        for name, (u, v) in self.factors.items():
            layer = model.layers[name]
            layer.u, layer.v = u.to(layer.u.device), v.to(layer.v.device)
