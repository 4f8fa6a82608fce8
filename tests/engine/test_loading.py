"""From settings to parts: what is refused, and what is told."""

import gc
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
import torch

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError
from engine.gguf import GGMLType
from engine.kernels import Kernels, Weight
from engine.kernels.reference import ReferenceKernels
from engine.loading import load_draft_model, load_parts
from engine.memory import available_bytes
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cpu=1,cuda:0=1", "torch sees 0 CUDA devices"),
        ("cpu=1,cuda:0=2", "the model's 2 layers"),
        ("cpu=1,cpu=1", "each once"),
    ],
)
def test_places_that_there_are_not(tiny_model: Path, device: str, words: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is present")
    with pytest.raises(ConfigError, match=words):
        load_parts(EngineConfig(tiny_model, device=device))


def full(
    self: Kernels, data: np.ndarray, ggml_type: GGMLType, shape: tuple[int, int], bias: torch.Tensor | None
) -> Weight:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total of ...")


def test_memory_that_ends_is_one_line(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EngineConfig(tiny_model, device="cpu", kernels="reference", draft_model=tiny_model)
    _, tokenizer, info = load_parts(config)
    monkeypatch.setattr(ReferenceKernels, "pack", full)
    with pytest.raises(
        ConfigError, match=r"^the model does not fit the memory of cpu: put fewer layers"
    ) as caught:
        load_parts(config)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^the draft model does not fit"):
        load_draft_model(config, tokenizer, info.context_length)


def test_what_torch_keeps_for_itself_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert available_bytes(torch.device("cuda:0")) == 140


@pytest.mark.parametrize("kernels", ALL)
def test_a_model_goes_with_its_engine_packed_or_not(tmp_path: Path, kernels: str) -> None:
    path = write_llama(tmp_path / "x.gguf", type="F16", n_embd=512, n_ff=2048, n_layers=3)
    for settled in (False, True):
        engine = Engine.load(EngineConfig(path, kernels=kernels))
        if settled:
            engine.kernels.settle()
        model = ref(engine.model)
        del engine
        gc.collect()
        assert model() is None
