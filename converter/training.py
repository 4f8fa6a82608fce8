"""Trains theta with the packed weights frozen."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from converter.trainable import TrainableModel
from engine.batch import Batch
from engine.errors import ConfigError
from engine.models import Model

WARM_UP = 5
"""Steps over which the learning rate rises, before it falls with a cosine."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits [T, vocab] and token ids [T] of a window to what is to become small, 0-dimensional."""


def language_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean negative log likelihood of each token after those in front of it."""
    return F.cross_entropy(logits[:-1], ids[1:])


@dataclass(frozen=True, slots=True)
class DistillationLoss:
    """Mean KL divergence from a reference's distribution over the next token to the model's."""

    reference: Model

    def __call__(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Natural logarithms, as the language loss has."""
        with torch.no_grad():
            target = F.log_softmax(self.reference(Batch.of_one(ids), None), -1)
        return F.kl_div(F.log_softmax(logits, -1), target, log_target=True, reduction="batchmean")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast."""

    steps: int
    learning_rate: float

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / WARM_UP)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Trainer:
    """Adam over the factors of theta, one window a step, in an order that only the seed decides."""

    def __init__(
        self, model: TrainableModel, windows: torch.Tensor, loss: Loss, schedule: Schedule, seed: int
    ) -> None:
        """`windows`: int64 [windows, T]."""
        self._model = model
        self._windows = windows
        self._loss = loss
        self._schedule = schedule
        self._seed = seed
        self.step_number = 0
        for factor in model.parameters:
            factor.requires_grad_()
        self._adam = torch.optim.Adam(model.parameters, lr=schedule.learning_rate)

    def step(self) -> float:
        """One step; the loss before it. Raises `ConfigError` when the training runs away."""
        for group in self._adam.param_groups:
            group["lr"] = self._schedule.rate(self.step_number)
        ids = self._window(self.step_number)
        loss = self._loss(self._model.logits(ids), ids)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(
                f"the training ran away at step {self.step_number + 1}: lower the --learning-rate"
            )
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        self.step_number += 1
        return value

    def state(self) -> dict[str, Any]:
        """What Adam remembers."""
        return self._adam.state_dict()

    def restore(self, step: int, state: dict[str, Any]) -> None:
        """Go on after `step` steps with what Adam remembered; the factors are the model's own."""
        self.step_number = step
        self._adam.load_state_dict(state)

    def _window(self, step: int) -> torch.Tensor:
        """Each round over the windows has an order of its own."""
        turn, place = divmod(step, len(self._windows))
        generator = torch.Generator().manual_seed(self._seed + turn)
        return self._windows[torch.randperm(len(self._windows), generator=generator)[place]]
