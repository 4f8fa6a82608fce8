"""The factors of a job, made step by step and kept from one session to the next."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converter.checkpoint import Checkpoint
from converter.derive import derive_residual
from converter.int8 import to_int8
from converter.job import ConversionJob, Method
from converter.svd import svd_theta
from converter.trainable import TrainableModel
from converter.training import DistillationLoss, Loss, Schedule, Trainer, language_loss
from engine.errors import ModelFileError
from engine.gguf import GGUFFile
from engine.models import Model
from engine.theta import ThetaFactors

_SAVE_SECONDS = 15.0
"""An interrupt costs no more work than this, and one step."""

Progress = Callable[[str, int, int, str], None]
"""Told the stage, how much of it is done, out of how much, and a word on how it goes."""


class FactorMaker:
    """Makes the factors of theta by the method of a job; its checkpoint lets a later one go on."""

    def __init__(
        self,
        job: ConversionJob,
        model: TrainableModel,
        base: GGUFFile,
        windows: torch.Tensor,
        reference: GGUFFile | None,
        teacher: Model | None,
        identity: dict[str, Any],
        progress: Progress,
    ) -> None:
        """`windows`: int64 [windows, T]; `identity`: all that the factors depend on; `teacher`: the
        reference, loaded, if theta is to be trained towards it.
        """
        self._job = job
        self._model = model
        self._base = base
        self._windows = windows
        self._reference = reference
        self._teacher = teacher
        self._identity = identity
        self._progress = progress
        self._saved = time.monotonic()

    def make(self) -> dict[str, ThetaFactors]:
        """INT8 factors by tensor.

        Raises `ConfigError`, also for a checkpoint that is not this job's, and `ModelFileError` for weights
        that are not finite.
        """
        if self._job.method is Method.SVD:
            return self._by_letter()
        checkpoint = self._begin(self._job.checkpoint)
        if self._reference is not None:
            self._derive(self._reference, checkpoint)
        if self._job.method is Method.TRAIN:
            self._train(checkpoint)
        return {
            name: to_int8(layer.u.detach().T.cpu().numpy(), layer.v.detach().T.cpu().numpy())
            for name, layer in self._model.layers.items()
        }

    def _begin(self, path: Path) -> Checkpoint:
        if not self._job.resume:
            return Checkpoint(self._identity)
        checkpoint = Checkpoint.load(path, self._identity)
        checkpoint.give(self._model)
        return checkpoint

    def _by_letter(self) -> dict[str, ThetaFactors]:
        factors: dict[str, ThetaFactors] = {}
        for number, name in enumerate(self._model.layers):
            weight = self._base.dequantize(name)
            if not np.isfinite(weight).all():
                raise ModelFileError(f"{self._base.path}: {name} is not finite: the file is damaged")
            u, v = svd_theta(weight, self._model.rank, self._job.target_size)
            factors[name] = to_int8(u, v)
            self._progress("svd", number + 1, len(self._model.layers), "")
        return factors

    def _derive(self, reference: GGUFFile, checkpoint: Checkpoint) -> None:
        blocks = self._model.model.cache_shape.layers

        def done(count: int) -> None:
            checkpoint.blocks = count
            self._progress("residual", count, blocks, "")
            self._keep(checkpoint, now=count == blocks)

        if checkpoint.steps:
            return
        derive_residual(
            self._model,
            self._base,
            reference,
            self._windows[: self._job.windows],
            seed=self._job.seed,
            done=checkpoint.blocks,
            progress=done,
        )

    def _train(self, checkpoint: Checkpoint) -> None:
        loss: Loss = language_loss if self._teacher is None else DistillationLoss(self._teacher)
        schedule = Schedule(self._job.steps, self._job.learning_rate)
        if not checkpoint.steps:
            self._model.balance()
        trainer = Trainer(self._model, self._windows, loss, schedule, self._job.seed)
        if checkpoint.steps:
            trainer.restore(checkpoint.steps, checkpoint.adam)
        smooth: float | None = None
        while trainer.step_number < self._job.steps:
            value = trainer.step()
            smooth = value if smooth is None else 0.9 * smooth + 0.1 * value
            checkpoint.steps, checkpoint.adam = trainer.step_number, trainer.state()
            self._progress("train", trainer.step_number, self._job.steps, f"loss {smooth:.3f}")
            self._keep(checkpoint, now=trainer.step_number == self._job.steps)

    def _keep(self, checkpoint: Checkpoint, *, now: bool) -> None:
        if now or time.monotonic() - self._saved >= _SAVE_SECONDS:
            checkpoint.take(self._model)
            checkpoint.save(self._job.checkpoint)
            self._saved = time.monotonic()
