"""A model with theta that can be learned is the model it was, until it has learned."""

import pytest
import torch

from engine.architectures import open_model
from engine.batch import Batch
from engine.kernels.reference import ReferenceKernels
from engine.models import Loader, load_model
from tests.converter.jobs import CPU, Bench, disturb, random_windows, trainable

IDS = random_windows(1, 32)[0]


@pytest.mark.parametrize("rank", [2, 8])
def test_theta_does_nothing_at_the_start(bench: Bench, rank: int) -> None:
    file = open_model(bench.base)
    plain = load_model(file, Loader(file, ReferenceKernels(CPU, dense_bytes=1 << 30)), 32)
    model = trainable(bench.base, rank=rank)
    baseline = plain(Batch.of_one(IDS), None)
    assert torch.equal(model.logits(IDS), baseline)
    disturb(model)
    assert not torch.allclose(model.logits(IDS), baseline, atol=1e-2)
    assert torch.equal(model.logits(IDS), model.model(Batch.of_one(IDS), None))
    assert model.star.rank == model.rank == rank


def test_factors_fit_their_tensors(bench: Bench) -> None:
    file, model = open_model(bench.base), trainable(bench.base)
    assert list(model.layers) == [
        f"blk.{block}.{part}.weight"
        for block in range(2)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    ]
    for name, layer in model.layers.items():
        rows, columns = file.file.tensors[name].shape
        assert (layer.u.shape, layer.v.shape) == ((4, rows), (4, columns))
        assert not layer.u.any()
        assert layer.v.norm(dim=1).mean() == pytest.approx(1, abs=0.3)
    assert [id(factor) for factor in model.parameters[:2]] == [
        id(factor)
        for factor in (model.layers["blk.0.attn_q.weight"].u, model.layers["blk.0.attn_q.weight"].v)
    ]


def test_only_the_selected_get_theta(bench: Bench) -> None:
    model = trainable(bench.base, tensors=["token_embd.weight", "blk.1.ffn_up.weight"])
    assert sorted(model.layers) == ["blk.1.ffn_up.weight", "token_embd.weight"]


def test_the_start_is_seeded(bench: Bench) -> None:
    one, same, other = (trainable(bench.base, seed=seed) for seed in (1, 1, 2))
    for first, second, third in zip(one.parameters, same.parameters, other.parameters, strict=True):
        assert torch.equal(first, second)
        assert not first.any() or not torch.equal(first, third)


def test_short_memory_is_seen_from_the_length_of_the_windows(bench: Bench) -> None:
    assert not trainable(bench.base, positions=32)._checkpointed
    # attention's odds grow with the square of the window: a million tokens fit no machine
    assert trainable(bench.base, positions=1 << 20)._checkpointed


def test_balanced_factors_are_the_same_theta(bench: Bench) -> None:
    model = trainable(bench.base)
    disturb(model)
    layer = model.layers["blk.0.attn_q.weight"]
    layer.replace(layer.u, layer.v * torch.tensor([[127.0], [1e-3], [1.0], [0.0]]))
    before = model.logits(IDS)
    model.balance()
    torch.testing.assert_close(model.logits(IDS), before, atol=1e-4, rtol=1e-4)
    for one in model.layers.values():
        torch.testing.assert_close(one.v.norm(dim=1), torch.ones(4))
    assert not layer.u[3].any()
