"""Moves in the cache, and hidden states, on tiny models."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from engine.architectures import open_model
from engine.batch import Batch, Span
from engine.context_shift import Move
from engine.kernels import select_kernels
from engine.kv_cache import KVCache
from engine.model_runner import ModelRunner
from engine.models import Loader, load_model
from tests.engine.models.numpy_llama import NumpyLlama
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL, FASTEST_AND_REFERENCE

ROTATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "part of the head turns": {"metadata": {"llama.rope.dimension_count": 8}},
    "linear": {"rope_scaling": "linear"},
    "yarn": {"rope_scaling": "yarn"},
    "llama3": {"rope_scaling": "llama3"},
}
CPU = torch.device("cpu")
FRONT, GAP, TAIL = 10, 37, 40


class Cached:
    """A model with a cache of 256 slots, that computes contexts in slots of its own choice."""

    def __init__(self, path: Path, kernels: str) -> None:
        file = open_model(path)
        chosen = select_kernels(CPU, dense_bytes=2**30, threads=1, name=kernels)
        self.model = load_model(file, Loader(file, chosen), 256)
        shape = self.model.cache_shape
        self.cache = KVCache.allocate(
            layers=shape.layers,
            slots=256,
            kv_heads=shape.kv_heads,
            key_dim=shape.key_dim,
            value_dim=shape.value_dim,
            dtype=chosen.cache_dtype,
            device=CPU,
        )
        self.runner = ModelRunner(self.model, self.cache)

    def compute(self, tokens: list[int], where: torch.Tensor) -> None:
        """Write the keys and values of a context to these slots."""
        places = torch.arange(len(tokens))
        batch = Batch(torch.tensor(tokens), places, where, (Span(0, len(tokens), where),), places[:0])
        self.runner.run(batch)


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("kernels", FASTEST_AND_REFERENCE)
def test_moved_keys_are_those_of_the_new_positions(rotation: str, kernels: str, tmp_path: Path) -> None:
    """Keys and values of the first layer depend on a token and its place alone, not on what is in front."""
    path = write_llama(tmp_path / "model.gguf", n_layers=1, context_length=256, **ROTATIONS[rotation])
    rng = Random(1)
    tokens = [rng.randrange(250) for _ in range(FRONT + GAP + TAIL)]
    where = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    moved, fresh = Cached(path, kernels), Cached(path, kernels)
    moved.compute(tokens, where[: len(tokens)])
    fresh.compute(tokens[:FRONT] + tokens[FRONT + GAP :], where[-FRONT - TAIL :])
    sources = where[FRONT + GAP : len(tokens)].numpy()
    # some targets are sources of other tokens
    targets = torch.cat((where[FRONT + GAP + 20 : len(tokens)], where[200:220])).numpy()
    moved.runner.move([Move(sources, targets, np.full(TAIL, GAP))])
    keys, expected = moved.cache.keys[0, targets].float(), fresh.cache.keys[0, where[-TAIL:]].float()
    # rounded to half precision once before the turn and once behind it
    unit = 2.0**-11 if moved.cache.keys.dtype == torch.float16 else 2.0**-20
    pairs = (*expected.shape[:-1], -1, 2)
    length = expected.reshape(pairs).norm(dim=-1, keepdim=True)
    error = (keys - expected).reshape(pairs).abs() / length
    assert float(error.max()) < 4 * unit
    found = moved.cache.values[0, targets], fresh.cache.values[0, where[-TAIL:]]
    torch.testing.assert_close(*found, rtol=0, atol=0 if kernels != "reference" else 1e-5)


def test_a_distance_of_nothing_copies_to_the_bit(tiny_model: Path) -> None:
    it = Cached(tiny_model, FASTEST_AND_REFERENCE[0])
    where = torch.arange(100)
    it.compute([place % 200 for place in range(100)], where)
    before = it.cache.keys[:, :100].clone(), it.cache.values[:, :100].clone()
    nothing = np.zeros(50, dtype=np.int64)
    first, second = np.arange(50), np.arange(50, 100)
    it.runner.move([Move(first, second, nothing), Move(second, first, nothing)])
    swapped = torch.cat((where[50:], where[:50]))
    assert torch.equal(it.cache.keys[:, :100], before[0][:, swapped])
    assert torch.equal(it.cache.values[:, :100], before[1][:, swapped])


@pytest.mark.parametrize("kernels", ALL)
def test_hidden_states_are_those_in_front_of_the_output_matrix(kernels: str, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "model.gguf", type="F32", tied=False)
    tokens = [5, 17, 99, 3, 3, 200]
    batch = Batch.of_one(torch.tensor(tokens), range(2, 6))
    found = Cached(path, kernels).runner.states(batch)
    assert found.dtype == np.float32
    reference = NumpyLlama(path)
    logits = found.astype(np.float64) @ reference.weights["output.weight"].T
    expected = reference.logits(tokens)[2:]
    tolerance = 2e-4 if kernels == "reference" else 5e-3
    np.testing.assert_allclose(logits, expected, atol=tolerance * float(np.abs(expected).max()))


def test_no_states_are_wanted(tiny_model: Path) -> None:
    it = Cached(tiny_model, FASTEST_AND_REFERENCE[0])
    assert it.runner.states(Batch.of_one(torch.tensor([5, 6]), range(0))).shape == (0, 64)
