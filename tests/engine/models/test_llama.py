from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.architectures import open_model
from engine.batch import Batch, Span
from engine.kernels import select_kernels
from engine.kv_cache import KVCache
from engine.models import Loader, Model, load_model
from tests.engine.models.numpy_llama import NumpyLlama
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL

IDS = [5, 17, 99, 3, 3, 200, 41, 7, 120, 64, 9, 250]
CPU = torch.device("cpu")


def load(path: Path, kernels: str = "reference", *, dense_bytes: int = 2**30, positions: int = 64) -> Model:
    file = open_model(path)
    chosen = select_kernels(CPU, dense_bytes=dense_bytes, threads=1, name=kernels)
    return load_model(file, Loader(file, chosen), positions)


def run(model: Model, ids: list[int], chunks: list[int]) -> np.ndarray:
    """Logits of every row, the context computed in chunks in scattered slots of a cache."""
    shape = model.cache_shape
    cache = KVCache.allocate(
        layers=shape.layers,
        slots=64,
        kv_heads=shape.kv_heads,
        key_dim=shape.key_dim,
        value_dim=shape.value_dim,
        dtype=model.kernels.cache_dtype,
        device=CPU,
    )
    slots = torch.randperm(64, generator=torch.Generator().manual_seed(1))[: len(ids)]
    found, start = [], 0
    for count in chunks:
        stop = start + count
        batch = Batch(
            token_ids=torch.tensor(ids[start:stop]),
            positions=torch.arange(start, stop),
            slots=slots[start:stop],
            spans=(Span(0, count, slots[:stop]),),
            logit_rows=torch.arange(count),
        )
        found.append(model(batch, cache))
        start = stop
    assert start == len(ids)
    return torch.cat(found).numpy()


VARIANTS: dict[str, dict[str, Any]] = {
    "tied": {"type": "F32"},
    "untied": {"type": "F32", "tied": False},
    "bias": {"type": "F32", "bias": True},
    "no sharing": {"type": "F32", "n_kv_heads": 4},
    "one shared head": {"type": "F32", "n_kv_heads": 1},
    "wide heads": {"type": "F32", "head_dim": 32},
    "part of the head turns": {"type": "F32", "metadata": {"llama.rope.dimension_count": 8}},
    "base": {"type": "F32", "rope_freq_base": 500000.0},
    "linear": {"type": "F32", "rope_scaling": "linear"},
    "yarn": {"type": "F32", "rope_scaling": "yarn"},
    "llama3": {"type": "F32", "rope_scaling": "llama3"},
    "F16": {"type": "F16"},
    "BF16": {"type": "BF16"},
    "Q4_0": {"type": "Q4_0"},
    "Q4_1": {"type": "Q4_1"},
    "Q8_0": {"type": "Q8_0"},
    "Q4_K": {"type": "Q4_K", "n_layers": 1},
    "Q6_K with Q5_K": {"type": {"*ffn*": "Q5_K", "*": "Q6_K"}, "n_layers": 1},
    "IQ4_NL": {"type": "IQ4_NL"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kernels", ALL)
def test_logits_are_those_of_the_definition(variant: str, kernels: str, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "model.gguf", **VARIANTS[variant])
    expected = NumpyLlama(path).logits(IDS)
    found = run(load(path, kernels), IDS, [len(IDS)])
    assert found.shape == expected.shape
    if kernels == "reference":
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4)
    else:
        # keys and values in half precision, and in front of integers activations of 8 bits
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < (1e-3 if VARIANTS[variant]["type"] in ("F32", "F16", "BF16") else 0.04)


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 7], [11, 1], [1, 4, 2, 5]])
@pytest.mark.parametrize("kernels", ALL)
def test_chunks_give_what_the_whole_gives(chunks: list[int], kernels: str, tmp_path: Path) -> None:
    """To the bit with the native kernels."""
    model = load(write_llama(tmp_path / "model.gguf"), kernels)
    tolerance = 1e-4 if kernels == "reference" else 0
    np.testing.assert_allclose(run(model, IDS, chunks), run(model, IDS, [12]), atol=tolerance, rtol=0)


def test_weights_kept_packed_give_the_same(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "model.gguf", type="Q4_1", bias=True, tied=False)
    dense, packed = load(path), load(path, dense_bytes=0)
    np.testing.assert_allclose(run(packed, IDS, [12]), run(dense, IDS, [12]), atol=1e-4)


def test_the_variants_differ(tmp_path: Path) -> None:
    """Or else the comparison above would compare nothing."""
    plain = run(load(write_llama(tmp_path / "plain.gguf", type="F32")), IDS, [12])
    for name in ("linear", "yarn", "llama3", "base", "part of the head turns"):
        other = run(load(write_llama(tmp_path / f"{name}.gguf", **VARIANTS[name])), IDS, [12])
        assert np.abs(other - plain).max() > 1e-2, name
