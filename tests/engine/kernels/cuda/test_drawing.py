"""The sampler with kernels that draw, against the same sampler without, and an engine on them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.architectures import open_model
from engine.config import EngineConfig
from engine.engine import Engine
from engine.kernels.cuda.kernels import CudaKernels
from engine.kernels.reference import ReferenceKernels
from engine.models import Loader, load_model
from engine.sampling import Row, Sampler
from engine.tokenizer import Tokenizer
from engine.types import ModelInfo, SamplingParams
from tests.engine.driving import request, run
from tests.engine.sampling import rows
from tests.support.gguf_files import write_llama

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("large_tiles")]

NONE: frozenset[int] = frozenset()
KINDS = {
    "default": SamplingParams(seed=1),
    "greedy": SamplingParams(temperature=0.0, seed=2),
    "min-p": SamplingParams(top_k=0, top_p=1.0, min_p=0.1, seed=3),
    "top-k": SamplingParams(top_k=5, top_p=0.8, temperature=1.7, seed=4),
    "penalties": SamplingParams(rep_pen=1.3, seed=5),
    "mirostat": SamplingParams(mirostat=2, seed=6),
    "probabilities": SamplingParams(seed=7),
}


def sampler_of(tokenizer: Tokenizer, kernels: CudaKernels | None) -> Sampler:
    sampler = Sampler(tokenizer, draw=None if kernels is None else kernels.draw)
    for name, params in KINDS.items():
        count = 3 if name == "probabilities" else None
        sampler.add(rows.request(params, name, logprobs=count))
    return sampler


def test_the_same_seeds_give_the_same_tokens(gpt2_tokenizer: Tokenizer, device: torch.device) -> None:
    with_kernels = sampler_of(gpt2_tokenizer, CudaKernels(device))
    without = sampler_of(gpt2_tokenizer, None)
    vocab = gpt2_tokenizer.vocab_size
    rng = np.random.default_rng(5)
    for step in range(8):
        logits = torch.from_numpy(rng.normal(0, 3, (len(KINDS), vocab)).astype(np.float32))
        if step == 5:
            logits[:] = -torch.inf
        wanted = [Row(name, [3, 4, 5], NONE, None, None) for name in KINDS]
        if step == 6:
            wanted[0] = Row("default", [3], frozenset({7, 8}), None, None)
            wanted[1] = Row("greedy", [3], NONE, None, 9)
        found = with_kernels.sample(logits.to(device), wanted)
        assert [draw.token for draw in found] == [draw.token for draw in without.sample(logits, wanted)]
        assert (found[-1].logprobs is None) == (step == 5)


def test_an_engine_runs_on_them(tmp_path: Path, device: torch.device) -> None:
    path = write_llama(tmp_path / "tiny.gguf", n_layers=1, type="F32")
    config = EngineConfig(path, context_length=64, kv_tokens=128, draft_tokens=2)
    replies = []
    for kernels in (CudaKernels(device), ReferenceKernels(torch.device("cpu"), dense_bytes=2**30)):
        file = open_model(path)
        model = load_model(file, Loader(file, kernels), 64)
        tokenizer = Tokenizer.from_metadata(file.file.metadata)
        info = ModelInfo("tiny", "llama", "F32", 1, 64, 64, tokenizer.vocab_size, None, "", "")
        engine = Engine(config, model, tokenizer, info)
        one = request("one", range(3, 23), 4, ignore_eos=True)
        other = request("other", range(3, 21), 3, SamplingParams(seed=9), ignore_eos=True)
        replies.append(run(engine, [one, other]))
        likely = engine.log_likelihoods([*range(3, 12)], 4)
        assert likely.shape == (5,)
        replies[-1]["likely"] = likely.cpu()  # type: ignore[assignment]
    found, should = replies
    assert found["one"].tokens == should["one"].tokens
    assert found["other"].tokens == should["other"].tokens
    torch.testing.assert_close(found["likely"], should["likely"], atol=0.02, rtol=0)
