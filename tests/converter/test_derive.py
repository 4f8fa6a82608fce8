"""Theta from a reference: nearer to it than the base, and the same in one go or two."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from converter.derive import derive_residual
from converter.trainable import TrainableModel
from engine.architectures import open_model
from engine.batch import Batch
from engine.gguf import GGUFFile, open_gguf
from engine.kernels.reference import ReferenceKernels
from engine.models import Loader, load_model
from tests.converter.jobs import CPU, SIZES, Bench, random_windows, trainable
from tests.support.gguf_files import write_llama

WINDOWS = random_windows(4, 32)
UNSEEN = random_windows(4, 32, seed=1)


@pytest.fixture
def base(bench: Bench) -> Iterator[GGUFFile]:
    with open_gguf(bench.base) as file:
        yield file


@pytest.fixture
def reference(bench: Bench) -> Iterator[GGUFFile]:
    with open_gguf(bench.reference) as file:
        yield file


def logits(path: Path) -> torch.Tensor:
    file = open_model(path)
    model = load_model(file, Loader(file, ReferenceKernels(CPU, dense_bytes=1 << 30)), 32)
    return torch.stack([model(Batch.of_one(window), None) for window in UNSEEN])


def distance(model: TrainableModel, target: torch.Tensor) -> float:
    """Mean squared difference of the logits on windows that theta was not made with."""
    return float((torch.stack([model.logits(window) for window in UNSEEN]) - target).square().mean())


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_the_corrected_model_is_nearer_to_the_reference(bench: Bench, tmp_path: Path, kind: str) -> None:
    path = write_llama(tmp_path / "reference.gguf", type=kind, **SIZES)
    target = logits(path)
    distances = {}
    with open_gguf(bench.base) as base, open_gguf(path) as reference:
        for rank in (2, 8):
            model = trainable(bench.base, rank=rank)
            distances[0] = distance(model, target)
            derive_residual(model, base, reference, WINDOWS, seed=0)
            distances[rank] = distance(model, target)
    assert distances[8] < 0.5 * distances[0]
    assert distances[8] < distances[2] < 0.9 * distances[0]


def test_a_layer_gives_back_what_its_inputs_lost(base: GGUFFile, reference: GGUFFile, bench: Bench) -> None:
    """Alone and at a rank beyond the inputs' directions, it is the reference's layer but for the rounding."""
    name = "blk.0.attn_q.weight"
    window = random_windows(1, 16)
    window[:, 1:] = window[:, 1:] % 4 + 10  # four tokens, so four directions
    model = trainable(bench.base, rank=8, tensors=[name])
    derive_residual(model, base, reference, window, seed=0)
    seen: list[torch.Tensor] = []
    layer = model.layers[name]
    norm = torch.from_numpy(base.dequantize("blk.0.attn_norm.weight"))
    x = torch.nn.functional.rms_norm(model.model.embed(window[0]), (32,), norm, 1e-5)[1:]
    seen += [model.kernels.linear(x, layer.weight), x @ torch.from_numpy(reference.dequantize(name)).T]
    model.star.enable(False)
    before = (model.kernels.linear(x, layer.weight) - seen[1]).norm()
    assert (seen[0] - seen[1]).norm() < 0.05 * before


def test_the_output_layer_is_derived_from_the_last_state(
    base: GGUFFile, reference: GGUFFile, bench: Bench
) -> None:
    target = logits(bench.reference)
    model = trainable(bench.base, tensors=["token_embd.weight"])
    before = distance(model, target)
    derive_residual(model, base, reference, WINDOWS, seed=0)
    assert model.layers["token_embd.weight"].u.any()
    assert distance(model, target) < before


def test_blocks_see_inputs_as_the_corrected_ones_before_make_them(
    base: GGUFFile, reference: GGUFFile, bench: Bench
) -> None:
    """So the second block's theta depends on whether the first has its own."""
    both, second = trainable(bench.base), trainable(bench.base)
    derive_residual(both, base, reference, WINDOWS, seed=0)
    derive_residual(second, base, reference, WINDOWS, seed=0, done=1)
    assert not second.layers["blk.0.attn_q.weight"].u.any()
    # q, k and v of a first block look at the embedding alone
    assert not torch.equal(both.layers["blk.1.attn_q.weight"].u, second.layers["blk.1.attn_q.weight"].u)


@pytest.mark.parametrize("at", [1, 2])
def test_going_on_gives_what_one_go_gives(base: GGUFFile, reference: GGUFFile, bench: Bench, at: int) -> None:
    whole, first, second = (trainable(bench.base) for _ in range(3))
    derive_residual(whole, base, reference, WINDOWS, seed=0)

    def stop(done: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        derive_residual(first, base, reference, WINDOWS, seed=0, progress=stop)
    assert first.kernels.moments is None
    for name, layer in second.layers.items():
        layer.replace(first.layers[name].u.clone(), first.layers[name].v.clone())
    blocks: list[int] = []
    derive_residual(second, base, reference, WINDOWS, seed=0, done=at, progress=blocks.append)
    assert blocks == list(range(at + 1, 3))
    for one, other in zip(whole.parameters, second.parameters, strict=True):
        assert torch.equal(one, other)


def test_what_was_derived_can_be_trained(base: GGUFFile, reference: GGUFFile, bench: Bench) -> None:
    model = trainable(bench.base)
    derive_residual(model, base, reference, WINDOWS, seed=0)
    for factor in model.parameters:
        factor.requires_grad_()
    model.logits(WINDOWS[0]).sum().backward()  # type: ignore[no-untyped-call]
    assert all(factor.grad is not None and factor.grad.isfinite().all() for factor in model.parameters)
