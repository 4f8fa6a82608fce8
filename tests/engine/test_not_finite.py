"""Values that are no numbers: in a file, and computed from one."""

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ModelFileError
from engine.types import Event, FinishReason, SamplingParams
from tests.engine.driving import GREEDY, request
from tests.support.damage import values_of
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL, FASTEST_AND_REFERENCE

POISON = 70
"""The token of which nothing finite is computed."""


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of finite values whose products overflow for one token."""
    path = write_llama(tmp_path_factory.mktemp("poisoned") / "x.gguf", type="F32", tied=False)
    embedding = values_of(path, "token_embd.weight").reshape(-1, 64)
    embedding[:, 0] = 0
    embedding[POISON] = 0
    embedding[POISON, 0] = 8
    values_of(path, "blk.0.attn_v.weight").reshape(-1, 64)[:, 0] = 3e38
    # Nearly never drawn.
    values_of(path, "output.weight").reshape(-1, 64)[POISON] = 0
    return path


def last_events(engine: Engine) -> dict[str, Event]:
    last = {}
    while engine.has_work:
        for event in engine.step():
            if event.finish is not None:
                last[event.request_id] = event
        engine.check_integrity()
    return last


def damaged_file(path: Path, name: str, value: float, dtype: type = np.float32) -> Path:
    write_llama(path, type="F32", tied=False, bias=True, rope_scaling="llama3")
    values_of(path, name, dtype)[-1] = value
    return path


@pytest.mark.parametrize("kernels", ALL)
@pytest.mark.parametrize(
    "params",
    [GREEDY, SamplingParams(seed=1), SamplingParams(mirostat=2, seed=3), SamplingParams(top_k=900, seed=1)],
    ids=["greedy", "plain", "mirostat", "many"],
)
def test_a_request_of_no_numbers_ends_and_the_others_go_on(
    poisoned: Path, kernels: str, params: SamplingParams
) -> None:
    engine = Engine.load(EngineConfig(poisoned, kernels=kernels))
    for name, ids in (("good", [5, 6, 7]), ("bad", [5, POISON, 7]), ("other", [9] * 40)):
        engine.add(engine.prepare(request(name, ids, 8, params, ignore_eos=True, logprobs=2)))
    last = last_events(engine)
    assert {name: event.finish for name, event in last.items()} == {
        "good": FinishReason.LENGTH,
        "bad": FinishReason.ERROR,
        "other": FinishReason.LENGTH,
    }
    assert last["bad"].error is not None
    assert last["bad"].error.startswith("the model computed values that are not numbers: ")
    assert "\n" not in last["bad"].error
    assert (last["bad"].text, last["bad"].token_ids) == ("", ())
    assert last["bad"].usage is not None
    snapshot = engine.snapshot()
    assert snapshot.blocks_free == snapshot.blocks_total


@pytest.mark.parametrize("kernels", FASTEST_AND_REFERENCE)
def test_they_are_no_likelihoods(poisoned: Path, kernels: str) -> None:
    engine = Engine.load(EngineConfig(poisoned, kernels=kernels))
    assert engine.log_likelihoods([5, 6, 7], 1).isfinite().all()
    with pytest.raises(ModelFileError, match="the model computed values that are not numbers"):
        engine.log_likelihoods([5, POISON, 7], 1)


@pytest.mark.parametrize("kernels", FASTEST_AND_REFERENCE)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name",
    [
        "blk.1.attn_norm.weight",
        "blk.0.ffn_norm.weight",
        "output_norm.weight",
        "blk.1.attn_k.bias",
        "rope_freqs.weight",
    ],
)
def test_vectors_are_looked_at_when_they_are_loaded(
    tmp_path: Path, name: str, value: float, kernels: str
) -> None:
    path = damaged_file(tmp_path / "x.gguf", name, value)
    with pytest.raises(ModelFileError) as caught:
        Engine.load(EngineConfig(path, kernels=kernels))
    assert str(caught.value) == (
        f"{path}: the tensor {name} holds values that are not finite: the file is damaged; "
        "download or copy it again"
    )


def test_divisors_of_which_no_angles_come(tmp_path: Path) -> None:
    path = damaged_file(tmp_path / "x.gguf", "rope_freqs.weight", 0.0)
    with pytest.raises(ModelFileError, match="the rotation has no finite angles"):
        Engine.load(EngineConfig(path))


@pytest.mark.parametrize("kernels", ALL)
@pytest.mark.parametrize("name", ["token_embd.weight", "blk.1.ffn_down.weight", "output.weight"])
def test_a_matrix_is_named_as_soon_as_it_has_been_read(tmp_path: Path, name: str, kernels: str) -> None:
    path = damaged_file(tmp_path / "x.gguf", name, math.nan)
    words = f"the tensor {name} holds values that are not finite: the file is damaged"
    engine = None
    with suppress(ModelFileError):
        engine = Engine.load(EngineConfig(path, kernels=kernels))
    if engine is None:  # read already
        with pytest.raises(ModelFileError, match=f"x.gguf: {words}"):
            Engine.load(EngineConfig(path, kernels="reference"))
        return
    assert kernels != "reference", "it reads all of a file at once"
    engine.kernels.settle()
    assert engine.model.damage() == f"{words}; download or copy it again"
    engine.add(engine.prepare(request("x", [5, 6], 4)))
    # The last token's row of the embedding is not computed with.
    if name != "token_embd.weight":
        assert words in str(last_events(engine)["x"].error)


def test_several_matrices(tmp_path: Path) -> None:
    path = damaged_file(tmp_path / "x.gguf", "blk.0.attn_q.weight", math.nan)
    values_of(path, "blk.1.attn_q.weight")[0] = math.inf
    with pytest.raises(ModelFileError, match=r"blk\.0\.attn_q\.weight and 1 more tensors hold values"):
        Engine.load(EngineConfig(path, kernels="reference"))
