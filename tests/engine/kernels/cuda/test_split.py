"""A model whose first blocks run on the processor's kernels and whose last ones on the Triton kernels."""

from pathlib import Path

import pytest
import torch

from engine.architectures import CacheShape
from engine.batch_builder import BatchBuilder
from engine.block_manager import BlockManager
from engine.errors import ConfigError
from engine.kernels.cuda.kernels import CudaKernels
from engine.kernels.split_batch import batch_for
from engine.kv_cache import CacheFormat
from engine.loading import allocate_cache
from engine.paged_batch_builder import PagedBatchBuilder
from engine.plan import Chunk, Plan
from engine.sequence import Sequence
from engine.types import GenerationRequest, TokenPrompt
from tests.engine.kernels.operands import distance
from tests.engine.splitting import BLOCK, CPU, Stages, kernels, split_model
from tests.support.gguf_files import write_llama

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("large_tiles")]

PROMPTS = [[*range(3, 25)], [*range(40, 60)], [7, 9, 11]]


class Chunks:
    """Sequences with blocks, whose tokens become plans chunk by chunk."""

    def __init__(self) -> None:
        self.blocks = BlockManager(32, BLOCK)
        self.sequences = [
            Sequence.from_request(GenerationRequest(str(number), TokenPrompt(tuple(prompt)), 1))
            for number, prompt in enumerate(PROMPTS)
        ]

    def plan(self, *counts: int) -> Plan:
        plan = []
        for sequence, count in zip(self.sequences, counts, strict=True):
            assert self.blocks.grow(sequence, sequence.computed + count)
            plan.append(Chunk(sequence, sequence.computed, count))
            sequence.computed += count
        return plan


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("split") / "model.gguf", n_layers=2, vocab_size=300)


def logits(path: Path, stages: Stages) -> torch.Tensor:
    """Of the last tokens of all prompts, computed in two steps against one cache."""
    model = split_model(path, stages)
    cache = allocate_cache(model.cache_shape, 32 * BLOCK, model.kernels)
    chunks, builder = Chunks(), BatchBuilder(BLOCK, model.kernels.device)
    model(builder.build(chunks.plan(21, 19, 2)), cache)
    return model(builder.build(chunks.plan(1, 1, 1)), cache).cpu()


def test_prompts_and_tokens_are_those_of_the_references_stages(path: Path, device: torch.device) -> None:
    should = logits(path, [(kernels("reference"), 1), (kernels("reference"), 1)])
    found = logits(path, [(kernels("reference"), 1), (CudaKernels(device, CacheFormat.Q8), 1)])
    assert distance(found, should) < 0.04


def test_heads_that_the_cache_cannot_store_are_told() -> None:
    with pytest.raises(ConfigError, match=r"15 elements .*: choose another quantkv"):
        allocate_cache(CacheShape(1, 1, 16, 15), BLOCK, CudaKernels(CPU, CacheFormat.Q4))


def test_pages_are_those_of_the_paged_builder(device: torch.device) -> None:
    paged, plain = Chunks(), Chunks()
    own = CudaKernels(device)
    for counts in ((12, 17, 1), (10, 3, 2)):
        should = PagedBatchBuilder(BLOCK, device).build(paged.plan(*counts))
        found = batch_for(BatchBuilder(BLOCK, CPU).build(plain.plan(*counts)), own, BLOCK)
        assert found.pages is not None
        assert should.pages is not None
        for name in ("tables", "lengths", "starts"):
            assert torch.equal(getattr(found.pages, name), getattr(should.pages, name))
            assert getattr(found.pages, name).dtype == torch.int32
        assert (found.pages.page_size, found.pages.rows) == (BLOCK, should.pages.rows)
        assert torch.equal(found.positions, should.positions)
        assert torch.equal(found.slots, should.slots)
