"""What an interrupted conversion goes on from."""

from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Self
from zipfile import ZipFile

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
            _check_archive(path)
            # `weights_only`: a checkpoint may hold tensors and plain values, never code to run.
            checkpoint = cls(**torch.load(path, map_location="cpu", weights_only=True))
            checkpoint._check()
        except Exception:  # whatever the unpickler makes of a file that was not written here
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

    def _check(self) -> None:
        """Raise `ValueError` unless the fields are of their kinds."""
        pairs = self.factors.values() if isinstance(self.factors, dict) else [None]
        if not (
            isinstance(self.job, dict)
            and isinstance(self.blocks, int)
            and isinstance(self.steps, int)
            and isinstance(self.adam, dict)
            and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
        ):
            raise ValueError("fields of another kind")

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
            layer.replace(u.to(layer.u.device), v.to(layer.v.device))


def _check_archive(path: Path) -> None:
    """Raise an error for what is no zip archive, or one with a wrong checksum, which torch lets pass."""
    with ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("a wrong checksum")
