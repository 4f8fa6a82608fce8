"""The star product in a whole model, against a model whose matrices hold theta; and its switch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.writer import write_nkat
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError
from engine.gguf import GGMLType, open_gguf
from engine.kernels import Correction, Kernels, Weight
from engine.kernels.reference import ReferenceKernels
from engine.theta import Theta
from engine.types import ThetaStatus
from engine.worker import EngineWorker
from tests.converter.thetas import random_theta
from tests.engine.driving import Reply, drain, request, run, step
from tests.engine.models.numpy_llama import NumpyLlama
from tests.engine.test_worker import submit
from tests.support.gguf_files import random_tensor, write_llama
from tests.support.kernels import ALL
from tests.support.stars import block_matrices, write_star_model

IDS = [5, 17, 99, 3, 3, 200, 41, 7, 120, 64, 9, 250]
PROMPT = [7 * number % 250 for number in range(60)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("star") / "base.gguf", bias=True, context_length=512)


@pytest.fixture(scope="module")
def model(base: Path) -> tuple[Path, Theta]:
    return write_star_model(base.with_suffix(".nkat"), base)


def load(path: Path, **others: Any) -> Engine:
    return Engine.load(EngineConfig(path, context_length=256, device="cpu", threads=1, **others))


def by_definition(base: Path, theta: Theta, gamma: float) -> np.ndarray:
    oracle = NumpyLlama(base)
    for name, factors in theta.factors.items():
        u, v = factors.u.astype(np.float64), factors.v.astype(np.float64)
        oracle.weights[name] += 0.5 * gamma * (u * factors.scale.astype(np.float64)) @ v.T
    return oracle.log_likelihoods(IDS, 1)


@pytest.mark.parametrize("gamma", [None, 0.3, 1.0])
@pytest.mark.parametrize("kernels", ALL)
def test_the_model_is_the_definition(
    base: Path, model: tuple[Path, Theta], gamma: float | None, kernels: str
) -> None:
    path, theta = model
    expected = by_definition(base, theta, theta.gamma if gamma is None else gamma)
    found = load(path, gamma=gamma, kernels=kernels).log_likelihoods(IDS, 1).numpy()
    # the native kernels round activations to 8 bits
    np.testing.assert_allclose(found, expected, atol=1e-3 if kernels == "reference" else 0.05)
    assert np.abs(expected - by_definition(base, theta, 0)).max() > 0.01, "theta is too weak to test with"


def test_off_and_gamma_0_are_the_baseline_bit_for_bit(base: Path, model: tuple[Path, Theta]) -> None:
    baseline = load(base).log_likelihoods(IDS, 1)
    engine = load(model[0])
    assert not torch.equal(engine.log_likelihoods(IDS, 1), baseline)
    engine.set_theta(enabled=False)
    assert torch.equal(engine.log_likelihoods(IDS, 1), baseline)
    engine.set_theta(enabled=True, gamma=0)
    assert torch.equal(engine.log_likelihoods(IDS, 1), baseline)
    assert torch.equal(load(model[0], theta=False).log_likelihoods(IDS, 1), baseline)
    assert torch.equal(load(model[0], gamma=0.0).log_likelihoods(IDS, 1), baseline)


def test_gamma_0_of_the_file_is_no_missing_gamma(base: Path, tmp_path: Path) -> None:
    with open_gguf(base) as file:
        theta = random_theta(file, block_matrices(base), gamma=0.0)
        write_nkat(file, theta, tmp_path / "zero.nkat")
    engine = load(tmp_path / "zero.nkat")
    assert engine.star is not None
    assert engine.star.gamma == 0
    assert torch.equal(engine.log_likelihoods(IDS, 1), load(base).log_likelihoods(IDS, 1))
    asked = load(tmp_path / "zero.nkat", gamma=0.3)
    assert asked.star is not None
    assert asked.star.gamma == 0.3


def test_other_factors_leave_theta_off(base: Path, model: tuple[Path, Theta]) -> None:
    path, theta = model
    engine, baseline = load(path), load(base).log_likelihoods(IDS, 1)
    engine.set_theta(enabled=False)
    engine.replace_theta({name: factors.truncated(2) for name, factors in theta.factors.items()}, 0.9)
    assert torch.equal(engine.log_likelihoods(IDS, 1), baseline)
    engine.set_theta(enabled=True)
    assert not torch.equal(engine.log_likelihoods(IDS, 1), baseline)


def test_theta_is_no_part_of_what_the_model_is(base: Path, model: tuple[Path, Theta]) -> None:
    assert load(model[0]).info == load(base).info


def test_what_star_says(model: tuple[Path, Theta]) -> None:
    engine = load(model[0])
    star = engine.star
    assert star is not None
    assert (star.rank, star.gamma, star.enabled, len(star.layers)) == (4, 0.97, True, 14)
    engine.set_theta(enabled=False, gamma=0.25)
    assert (star.gamma, star.enabled) == (0.25, False)
    engine.set_theta(enabled=True)
    assert (star.gamma, star.enabled) == (0.25, True)


def test_prefixes_are_found_by_their_own_theta(base: Path, model: tuple[Path, Theta]) -> None:
    """The keys and values of a prompt seen with another theta are of no use, but stay."""
    expected = run(load(base), [request("x", PROMPT, 20)])["x"]
    engine = load(model[0])

    def reply(cached: int) -> list[int]:
        found = run(engine, [request("x", PROMPT, 20)])["x"]
        assert found.usage is not None
        assert found.usage.cached_tokens == cached
        return found.tokens

    starred = reply(0)
    assert starred != expected.tokens
    engine.set_theta(enabled=False)
    assert reply(0) == expected.tokens
    engine.set_theta(enabled=True)
    assert reply(48) == starred
    engine.set_theta(gamma=0.3)
    weaker = reply(0)
    engine.set_theta(gamma=0.0)
    assert reply(48) == expected.tokens, "gamma 0 is no theta"
    engine.set_theta(gamma=0.97)
    assert reply(48) == starred
    for number in range(1, 21):
        engine.set_theta(gamma=number / 97)
    engine.set_theta(gamma=0.3)
    assert reply(0) == weaker, "forgotten, and not mixed up with another one"


def test_factors_that_are_replaced_drop_the_prefixes(model: tuple[Path, Theta]) -> None:
    path, theta = model
    engine = load(path)
    run(engine, [request("x", PROMPT, 20)])
    engine.replace_theta({name: factors.truncated(2) for name, factors in theta.factors.items()}, 0.97)
    found = run(engine, [request("x", PROMPT, 20)])["x"]
    assert found.usage is not None
    assert found.usage.cached_tokens == 0


@settings(max_examples=20, deadline=None)
@given(
    kernels=st.sampled_from(["auto", "reference"]),
    budget=st.sampled_from([16, 64]),
    switches=st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([True, False, None]), st.sampled_from([0.97, 0.4])),
        min_size=1,
        max_size=5,
    ),
)
def test_requests_keep_the_theta_that_they_began_with(
    model: tuple[Path, Theta], kernels: str, budget: int, switches: list[tuple[int, bool | None, float]]
) -> None:
    """Whatever is switched meanwhile, and whatever runs in the same steps."""
    engine = load(model[0], token_budget=budget, max_sequences=3, kernels=kernels)
    replies, alone = {}, {}
    for number, (steps, theta, gamma) in enumerate(switches):
        name = str(number)
        engine.set_theta(gamma=gamma, enabled=number % 2 == 0)
        asked = request(name, PROMPT[number % 2 :], 12, ignore_eos=True, theta=theta)
        engine.add(engine.prepare(asked))
        replies[name] = Reply()
        counts = number % 2 == 0 if theta is None else theta
        other = load(model[0], gamma=gamma if counts else 0.0, kernels=kernels)
        alone[name] = run(other, [asked])[name].tokens
        for _ in range(steps):
            step(engine, replies)
        engine.check_integrity()
    drain(engine, replies)
    assert {name: reply.tokens for name, reply in replies.items()} == alone


def test_what_cannot_be_switched(base: Path, model: tuple[Path, Theta]) -> None:
    with pytest.raises(ConfigError, match="has no theta"):
        load(base).set_theta(enabled=True)
    for gamma in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            load(model[0]).set_theta(gamma=gamma)


def test_the_worker_tells_of_theta_as_it_was_asked_for(model: tuple[Path, Theta]) -> None:
    worker = EngineWorker(load(model[0]))
    try:
        assert worker.theta == ThetaStatus(enabled=True, gamma=0.97, rank=4)
        worker.set_theta(gamma=0.0)
        assert worker.theta == ThetaStatus(enabled=True, gamma=0.0, rank=4)
        worker.set_theta(enabled=False)
        assert worker.theta == ThetaStatus(enabled=False, gamma=0.0, rank=4)
        worker.set_theta(enabled=True, gamma=1.0)
        assert worker.theta == ThetaStatus(enabled=True, gamma=1.0, rank=4)
    finally:
        worker.close()


def test_the_worker_switches_between_requests(base: Path, model: tuple[Path, Theta]) -> None:
    expected = run(load(base), [request("x", PROMPT, 8)])["x"].tokens
    worker = EngineWorker.start(EngineConfig(model[0], context_length=256, device="cpu", threads=1))
    try:
        listeners = []
        for name, enabled in enumerate((True, False, True)):
            worker.set_theta(enabled=enabled)
            events = submit(worker, request(str(name), PROMPT, 8)).all()
            listeners.append([token for event in events for token in event.token_ids])
        with pytest.raises(ConfigError):
            worker.set_theta(gamma=2.0)
        assert submit(worker, request("alive", PROMPT, 1)).all()
    finally:
        worker.close()
    assert listeners[1] == expected
    assert listeners[0] == listeners[2] != expected


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "packed"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
class TestStarLinear:
    """The operation alone."""

    def test_against_numpy(self, rows: int, dense: bool, bias: bool) -> None:
        kernels, matrix, x, u, v = _operands(rows, dense, bias)
        plain = kernels.linear(x, matrix)
        expected = (
            plain.double().numpy() + 0.4 * x.double().numpy() @ v.double().numpy().T @ u.double().numpy()
        )
        matrix.correct(Correction(u, v, torch.tensor(0.4)))
        found = kernels.linear(x, matrix)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)

    def test_gamma_0_is_linear_bit_for_bit(self, rows: int, dense: bool, bias: bool) -> None:
        kernels, matrix, x, u, v = _operands(rows, dense, bias)
        plain = kernels.linear(x, matrix)
        matrix.correct(Correction(u, v, torch.tensor(0.0)))
        assert torch.equal(kernels.linear(x, matrix), plain)

    def test_gamma_is_read_at_each_call(self, rows: int, dense: bool, bias: bool) -> None:
        kernels, matrix, x, u, v = _operands(rows, dense, bias)
        half_gamma = torch.tensor(0.1)
        matrix.correct(Correction(u, v, half_gamma))
        kernels.linear(x, matrix)
        half_gamma.fill_(0.4)
        found = kernels.linear(x, matrix)
        matrix.correct(Correction(u, v, torch.tensor(0.4)))
        assert torch.equal(found, kernels.linear(x, matrix))

    def test_gradients_of_the_factors(self, rows: int, dense: bool, bias: bool) -> None:
        kernels, matrix, x, u, v = _operands(rows, dense, bias)
        u, v = u.requires_grad_(), v.requires_grad_()
        matrix.correct(Correction(u, v, torch.tensor(0.4)))
        out = kernels.linear(x, matrix)
        weights = torch.arange(out.numel(), dtype=torch.float32).view_as(out) / out.numel()
        (out * weights).sum().backward()  # type: ignore[no-untyped-call]
        assert u.grad is not None
        assert v.grad is not None
        np.testing.assert_allclose(u.grad, 0.4 * (x @ v.detach().T).T @ weights, atol=1e-3)
        np.testing.assert_allclose(v.grad, 0.4 * (weights @ u.detach().T).T @ x, atol=1e-3)


def _operands(
    rows: int, dense: bool, bias: bool
) -> tuple[Kernels, Weight, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A Q4_1 matrix (48, 256) with a bias or none, x [rows, 256], u [4, 48] and v [4, 256]."""
    kernels = ReferenceKernels(torch.device("cpu"), dense_bytes=2**20 if dense else 0)
    tensor = random_tensor(np.random.default_rng(3), "Q4_1", (48, 256))
    generator = torch.Generator().manual_seed(1)
    x, b = torch.randn(rows, 256, generator=generator), torch.randn(48, generator=generator)
    matrix = kernels.pack(tensor.data.view(np.uint8), GGMLType.Q4_1, (48, 256), b if bias else None)
    u, v = torch.randn(4, 48, generator=generator), torch.randn(4, 256, generator=generator)
    return kernels, matrix, x, u, v
