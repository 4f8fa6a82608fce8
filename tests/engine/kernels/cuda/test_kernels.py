"""Whole models on the Triton kernels: against the reference kernels, in batches, and from recordings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu.stopwatch import HostStopwatch
from engine.architectures import open_model
from engine.batch import Batch
from engine.block_manager import BlockManager
from engine.cuda_graphs import CudaGraphs
from engine.kernels import Drawing, Draws
from engine.kernels.cuda.kernels import CudaKernels
from engine.kernels.reference import ReferenceKernels
from engine.kv_cache import CacheFormat, KVCache
from engine.models import Loader, Model, load_model
from engine.native.shortlist import Tail
from engine.paged_batch_builder import PagedBatchBuilder
from engine.plan import Chunk
from engine.sequence import Sequence as EngineSequence
from engine.theta import Theta, ThetaFactors
from engine.types import GenerationRequest, TokenPrompt
from tests.engine.kernels.operands import distance
from tests.support.gguf_files import write_llama

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("large_tiles")]

BLOCK = 16
MODELS: dict[str, dict[str, Any]] = {
    "Q4_1, tied": {"type": "Q4_1"},
    "Q4_K with Q6_K": {"type": {"blk.*.attn_v.weight": "Q6_K", "*": "Q4_K"}, "tied": False, "n_heads": 4},
    "Q8_0, biases, linear": {"type": "Q8_0", "bias": True, "rope_scaling": "linear"},
    "F16": {"type": "F16"},
}
PROMPT = [*range(3, 40)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: write_llama(folder / f"{number}.gguf", n_layers=1, vocab_size=300, **settings)
        for number, (name, settings) in enumerate(MODELS.items())
    }


def reference(path: Path) -> Model:
    file = open_model(path)
    kernels = ReferenceKernels(torch.device("cpu"), dense_bytes=2**30)
    return load_model(file, Loader(file, kernels), 256)


def on_device(path: Path, device: torch.device, format: CacheFormat = CacheFormat.F16) -> Model:
    file = open_model(path)
    return load_model(file, Loader(file, CudaKernels(device, format)), 256)


def cache_of(model: Model, slots: int) -> KVCache:
    shape = model.cache_shape
    return KVCache.allocate(
        layers=shape.layers,
        slots=slots,
        kv_heads=shape.kv_heads,
        key_dim=shape.key_dim,
        value_dim=shape.value_dim,
        dtype=model.kernels.cache_dtype,
        device=model.kernels.device,
        format=model.kernels.cache_format,
    )


class Running:
    """Sequences with blocks in one cache, advanced chunk by chunk."""

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]], sizes: Sequence[int] = ()) -> None:
        self.model = model
        self.cache = cache_of(model, 64 * BLOCK)
        self.blocks = BlockManager(64, BLOCK)
        self.builder = PagedBatchBuilder(BLOCK, model.kernels.device, sizes)
        self.sequences = [
            EngineSequence.from_request(GenerationRequest(str(i), TokenPrompt(tuple(prompt)), 1))
            for i, prompt in enumerate(prompts)
        ]

    def batch(self, counts: Sequence[int]) -> Batch:
        plan = []
        for sequence, count in zip(self.sequences, counts, strict=True):
            assert self.blocks.grow(sequence, sequence.computed + count)
            plan.append(Chunk(sequence, sequence.computed, count))
            sequence.computed += count
        return self.builder.build(plan)

    def run(self, counts: Sequence[int]) -> torch.Tensor:
        return self.model(self.batch(counts), self.cache)


def last_logits(model: Model, tokens: Sequence[int]) -> torch.Tensor:
    return model(Batch.of_one(torch.tensor(list(tokens)), range(len(tokens) - 1, len(tokens))), None)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [3, 12])
def test_a_text_without_a_cache_is_the_references(
    files: Mapping[str, Path], name: str, rows: int, device: torch.device
) -> None:
    ids = torch.tensor(PROMPT[:rows])
    found = on_device(files[name], device)(Batch.of_one(ids.to(device)), None).cpu()
    assert distance(found, reference(files[name])(Batch.of_one(ids), None)) < 0.02


@pytest.mark.parametrize(
    ("name", "format", "most"),
    [
        ("Q4_1, tied", CacheFormat.F16, 0.03),
        ("F16", CacheFormat.Q8, 0.04),
        ("F16", CacheFormat.Q4, 0.2),
    ],
)
def test_chunks_and_tokens_in_a_cache_are_the_whole_text(
    files: Mapping[str, Path], name: str, format: CacheFormat, most: float, device: torch.device
) -> None:
    prompts = [PROMPT[:22], PROMPT[5:25], PROMPT[:3]]
    running = Running(on_device(files[name], device, format), prompts)
    running.run([12, 17, 1])
    running.run([9, 2, 1])
    found = running.run([1, 1, 1]).cpu()
    model = reference(files[name])
    should = torch.cat([last_logits(model, prompt) for prompt in prompts])
    assert distance(found, should) < most


def test_a_recording_gives_what_the_step_itself_gives(
    files: Mapping[str, Path], device: torch.device
) -> None:
    prompts = [PROMPT[:5], PROMPT[5:24], PROMPT[:2]]
    results = []
    for recorded in (False, True):
        model = on_device(files["F16"], device)
        running = Running(model, prompts, sizes=(1, 4))
        for part in (running.cache.keys, running.cache.values):
            part.zero_()
        running.run([len(prompt) - 1 for prompt in prompts])
        recorder = HostStopwatch(device).recorder()
        graphs = CudaGraphs(model, running.cache, page_size=BLOCK, pages=4, most=4, recorder=recorder)
        if recorded:
            graphs.record()
        batch = running.batch([1, 1, 1])
        assert len(batch.token_ids) == 4, "filled up"
        logits = graphs.run(batch) if recorded else model(batch, running.cache)
        assert logits is not None
        results.append((logits, running.cache.keys.clone()))
        if recorded:
            for us in ((0.1, 0.5, 0.9), (0.7, 0.2, 0.4)):
                drawings = [Drawing(40, Tail(temperature=3.0), u) for u in us]
                drawn = graphs.draw(batch, drawings)
                assert drawn is not None
                assert torch.equal(drawn[0], logits)
                assert torch.equal(drawn[1], model.kernels.draw(logits, Draws.of(drawings, device)))
                assert len(set(drawn[1].tolist())) > 1
        several = running.builder.build([Chunk(running.sequences[1], 9, 4)])
        assert graphs.run(several) is None
        assert graphs.draw(several, [Drawing(1, Tail(), 0.0)]) is None
    (logits, keys), (same_logits, same_keys) = results
    assert logits.shape == (3, 300)
    assert torch.equal(logits, same_logits)
    assert torch.equal(keys, same_keys), "rows that fill up must write nothing"


def test_theta_counts_and_can_be_switched_off(files: Mapping[str, Path], device: torch.device) -> None:
    file = open_model(files["Q8_0, biases, linear"])
    rng = np.random.default_rng(3)
    factors = {
        name: ThetaFactors(
            rng.integers(-127, 128, (info.shape[0], 2)).astype(np.int8),
            rng.integers(-127, 128, (info.shape[1], 2)).astype(np.int8),
            np.full(2, 2e-5, np.float32),
        )
        for name, info in file.file.tensors.items()
        if name.startswith("blk.") and len(info.shape) == 2
    }
    theta = Theta(factors, rank=2, gamma=0.9, method="test", base_sha256="")
    found: dict[str, torch.Tensor] = {}
    should: dict[str, torch.Tensor] = {}
    for kernels, logits in (
        (CudaKernels(device), found),
        (ReferenceKernels(torch.device("cpu"), dense_bytes=2**30), should),
    ):
        model = load_model(file, Loader(file, kernels, theta), 256)
        assert model.star is not None
        batch = Batch.of_one(torch.tensor(PROMPT[:4], device=kernels.device))
        for name, on, gamma in (("on", True, 0.9), ("weak", True, 0.1), ("off", False, 0.9)):
            model.star.enable(on)
            model.star.set_gamma(gamma)
            logits[name] = model(batch, None).cpu()
    assert distance(should["on"], should["off"]) > 0.1, "theta must be seen"
    for name in found:
        assert distance(found[name], should[name]) < 0.02
