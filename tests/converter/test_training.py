"""Gradients against differences, and what a run of steps does."""

import math

import numpy as np
import pytest
import torch

from converter.trainable import TrainableModel
from converter.training import DistillationLoss, Schedule, Trainer, language_loss
from engine.architectures import open_model
from engine.batch import Batch
from engine.errors import ConfigError
from engine.kernels.reference import ReferenceKernels
from engine.kv_cache import KVCache
from engine.models import Loader, Model, load_model
from tests.converter.jobs import CPU, Bench, disturb, random_windows, trainable

IDS = random_windows(1, 24)[0]


def plain(bench: Bench) -> Model:
    file = open_model(bench.base)
    return load_model(file, Loader(file, ReferenceKernels(CPU, dense_bytes=1 << 30)), 32)


def take(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.step() for _ in range(steps)]


def gradients(model: TrainableModel) -> list[torch.Tensor]:
    for factor in model.parameters:
        factor.requires_grad_()
    language_loss(model.logits(IDS), IDS).backward()  # type: ignore[no-untyped-call]
    grads = [factor.grad for factor in model.parameters]
    assert all(grad is not None for grad in grads)
    return [grad for grad in grads if grad is not None]


@pytest.mark.parametrize("part", ["u", "v"])
@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "blk.1.ffn_down.weight"])
def test_a_gradient_is_the_slope_of_the_loss(bench: Bench, name: str, part: str) -> None:
    model = trainable(bench.base)
    disturb(model, 0.5)
    gradients(model)
    factor = getattr(model.layers[name], part)
    slope = float(factor.grad.norm())
    step = 0.02 * factor.grad / slope  # along the gradient, where the loss changes most

    def loss(offset: torch.Tensor) -> float:
        with torch.no_grad():
            factor.add_(offset)
            value = float(language_loss(model.logits(IDS).double(), IDS))
            factor.sub_(offset)
        return value

    assert slope > 1e-3
    assert (loss(step) - loss(-step)) / 0.04 == pytest.approx(slope, rel=0.01)


def test_gradients_are_the_same_where_blocks_are_computed_again(bench: Bench) -> None:
    kept, again = trainable(bench.base), trainable(bench.base)
    for model, checkpointed in ((kept, False), (again, True)):
        disturb(model)
        model._checkpointed = checkpointed
    runs: list[int] = []
    block = again.model.block

    def counted(number: int, x: torch.Tensor, batch: Batch, cache: KVCache | None) -> torch.Tensor:
        runs.append(number)
        return block(number, x, batch, cache)

    again.model.block = counted  # type: ignore[method-assign]
    for one, other in zip(gradients(kept), gradients(again), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert sorted(runs) == [0, 0, 1, 1]


def test_the_language_loss_is_that_of_the_next_token(bench: Bench) -> None:
    logits = plain(bench).logits(torch.randn(24, 32, generator=torch.Generator().manual_seed(1)))
    values = logits.numpy().astype(np.float64)
    odds = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    expected = -np.log([odds[at, IDS[at + 1]] for at in range(23)]).mean()
    assert float(language_loss(logits, IDS)) == pytest.approx(expected, rel=1e-5)


def test_distillation_is_the_divergence_from_the_reference(bench: Bench) -> None:
    model, loss = trainable(bench.base), DistillationLoss(plain(bench))
    assert float(loss(model.logits(IDS), IDS)) == pytest.approx(0, abs=1e-6)
    target = model.logits(IDS).numpy().astype(np.float64)
    disturb(model)
    logits = model.logits(IDS).numpy().astype(np.float64)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (target, logits))
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    assert expected > 1e-3
    assert float(loss(model.logits(IDS), IDS)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.2), (1, 0.4 * (1 + math.cos(math.pi / 100)) / 2), (4, (1 + math.cos(math.pi * 0.04)) / 2)],
)
def test_the_rate_rises_over_five_steps(step: int, share: float) -> None:
    assert Schedule(100, 0.004).rate(step) == pytest.approx(0.004 * share)


def test_the_rate_falls_to_nothing() -> None:
    schedule = Schedule(100, 0.004)
    assert schedule.rate(50) == pytest.approx(0.002)
    falling = [schedule.rate(step) for step in range(5, 100)]
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] < 1e-3 * 0.004


def test_the_loss_falls_and_the_weights_stay(bench: Bench) -> None:
    model = trainable(bench.base)
    trainer = Trainer(model, random_windows(1, 24), language_loss, Schedule(12, 0.02), seed=0)
    losses = take(trainer, 12)
    assert losses[-1] < losses[0] - 0.2
    assert trainer.step_number == 12
    model.star.enable(False)
    assert torch.equal(model.logits(IDS), plain(bench)(Batch.of_one(IDS), None))


def test_every_round_takes_every_window_once_in_an_order_of_its_own(bench: Bench) -> None:
    windows, seen = random_windows(6, 16), []

    def loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        seen.append(next(at for at, window in enumerate(windows) if torch.equal(window, ids)))
        return language_loss(logits, ids)

    model = trainable(bench.base, tensors=["blk.1.attn_q.weight"])
    trainer = Trainer(model, windows, loss, Schedule(12, 1e-4), seed=3)
    take(trainer, 12)
    first, second = seen[:6], seen[6:]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second


def test_going_on_is_as_if_nothing_had_happened(bench: Bench) -> None:
    windows, schedule = random_windows(3, 16), Schedule(5, 0.01)
    whole = trainable(bench.base)
    trainer = Trainer(whole, windows, language_loss, schedule, seed=1)
    take(trainer, 5)
    early, late = trainable(bench.base), trainable(bench.base, seed=9)
    trainer = Trainer(early, windows, language_loss, schedule, seed=1)
    take(trainer, 2)
    for name, layer in late.layers.items():
        u, v = (factor.detach().clone() for factor in (early.layers[name].u, early.layers[name].v))
        layer.replace(u, v)
    other = Trainer(late, windows, language_loss, schedule, seed=1)
    other.restore(2, trainer.state())
    take(other, 3)
    for one, two in zip(whole.parameters, late.parameters, strict=True):
        assert torch.equal(one, two)


def test_a_training_that_runs_away_is_one_line(bench: Bench) -> None:
    trainer = Trainer(trainable(bench.base), random_windows(2, 16), language_loss, Schedule(9, 1e30), seed=0)
    with pytest.raises(ConfigError, match=r"ran away at step \d: lower the --learning-rate"):
        take(trainer, 9)
