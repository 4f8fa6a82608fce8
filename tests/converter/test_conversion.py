"""From a model file to a file with theta: what is in it, what it does, and what is refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from converter.conversion import convert
from converter.job import ConversionJob, Method
from engine.batch import Batch
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, ModelFileError, NkatError
from engine.gguf import open_gguf
from engine.theta import RANKS, Theta, base_sha256, open_theta
from engine.theta.score import tpe
from tests.converter.jobs import SIZES, TEXT, Bench, ignore, random_windows
from tests.converter.thetas import same_theta
from tests.support.gguf_files import write_llama

IDS = random_windows(1, 32)[0]
BLOCK = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def method(bench: Bench, kind: str) -> dict[str, Any]:
    changes: dict[str, dict[str, Any]] = {
        "svd": {"method": Method.SVD},
        "residual": {"method": Method.RESIDUAL, "reference": bench.reference},
        "train": {"method": Method.TRAIN, "learning_rate": 0.02},
        "distil": {"method": Method.TRAIN, "reference": bench.reference},
    }
    return changes[kind]


def load(path: Path, **settings: Any) -> Engine:
    return Engine.load(EngineConfig(path, context_length=32, device="cpu", threads=1, **settings))


def logits(engine: Engine) -> torch.Tensor:
    return engine.model(Batch.of_one(IDS), None)


def theta_of(path: Path) -> Theta:
    with open_gguf(path) as file:
        theta = open_theta(file)
    assert theta is not None
    return theta


@pytest.mark.parametrize("kind", ["svd", "residual", "train", "distil"])
def test_the_same_input_gives_the_same_bytes(bench: Bench, tmp_path: Path, kind: str) -> None:
    jobs = [bench.job(tmp_path / name, **method(bench, kind)) for name in ("one.nkat", "two.nkat")]
    for job in jobs:
        convert(job, ignore)
    assert jobs[0].output.read_bytes() == jobs[1].output.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.nkat", "two.nkat"]
    # another seed, another theta; svd and the closed form leave nothing to chance
    other = replace(jobs[0], seed=1, output=tmp_path / "other.nkat")
    convert(other, ignore)
    one, two = theta_of(jobs[0].output).factors, theta_of(other.output).factors
    same = all(np.array_equal(one[name].u, two[name].u) for name in one)
    assert same == (kind in ("svd", "residual"))


def test_the_model_is_in_it_byte_for_byte(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat", evaluate=True)
    conversion = convert(job, ignore)
    with open_gguf(bench.base) as base, open_gguf(job.output) as written:
        for name, info in base.tensors.items():
            copy = written.tensors[name]
            assert (copy.type, copy.shape) == (info.type, info.shape)
            assert written.data(name).tobytes() == base.data(name).tobytes()
        for key in base.metadata:
            assert written.entry(key) == base.entry(key)
        names = [f"blk.{block}.{part}.weight" for block in range(2) for part in BLOCK]
        added = {f"{name}.theta_{part}" for name in names for part in ("u", "v", "scale")}
        assert written.tensors.keys() - base.tensors.keys() == added
        assert written.metadata["nkat.base.sha256"] == base.sha256()
    theta = theta_of(job.output)
    assert same_theta(conversion.theta, theta)
    assert (theta.rank, theta.gamma, theta.method) == (4, 0.97, "train")
    report, second = conversion.reports
    for prefix, one in (("nkat.report.", report), ("nkat.report.second.", second)):
        for key, value in one.notes().items():
            assert theta.notes[f"{prefix}{key}"] == value
    assert theta.notes["nkat.calibration.steps"] == 3
    assert len(GGUFReader(job.output).tensors) == len(base.tensors) + 3 * len(names)


@pytest.mark.parametrize("kind", ["svd", "train"])
def test_theta_off_and_gamma_zero_are_the_baseline_bit_for_bit(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    job = bench.job(tmp_path / "out.nkat", **method(bench, kind))
    convert(job, ignore)
    plain = logits(load(bench.base))
    assert not torch.equal(logits(load(job.output)), plain)
    assert torch.equal(logits(load(job.output, theta=False)), plain)
    assert torch.equal(logits(load(job.output, gamma=0.0)), plain)
    engine = load(job.output)
    engine.set_theta(enabled=False)
    assert torch.equal(logits(engine), plain)
    engine.set_theta(enabled=True, gamma=0.0)
    assert torch.equal(logits(engine), plain)


def test_a_sidecar_says_what_the_nkat_file_says(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat", learning_rate=0.02)
    alone = replace(job, output=tmp_path / "theta.bin", theta_only=True)
    convert(job, ignore)
    convert(alone, ignore)
    whole, beside = load(job.output), load(bench.base, theta_path=alone.output)
    assert torch.equal(logits(whole), logits(beside))
    assert not torch.equal(logits(whole), logits(load(bench.base)))
    assert alone.output.stat().st_size < job.output.stat().st_size - bench.base.stat().st_size + 1000


@pytest.mark.usefixtures("frozen")
def test_the_best_rank_is_a_cut_of_the_highest(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat", learning_rate=0.02, steps=6)
    best = replace(job, output=tmp_path / "best.nkat", optimize_rank=True, choosing_windows=2)
    conversion = convert(best, ignore)
    assert [trial.rank for trial in conversion.trials] == list(RANKS)
    chosen = max(conversion.trials, key=lambda trial: trial.tpe)
    theta = theta_of(best.output)
    assert theta.rank == conversion.theta.rank == chosen.rank
    for trial in conversion.trials:
        assert trial.tpe == pytest.approx(tpe(trial.perplexity, trial.overhead))
    assert len({trial.perplexity for trial in conversion.trials}) == 4
    # with as many windows held back, the same ones make theta
    convert(replace(job, output=tmp_path / "eight.nkat", rank=8, choosing_windows=2), ignore)
    highest = theta_of(tmp_path / "eight.nkat")
    assert theta.factors.keys() == highest.factors.keys()
    for name, factors in theta.factors.items():
        cut = highest.factors[name].truncated(chosen.rank)
        assert np.array_equal(factors.u, cut.u)
        assert np.array_equal(factors.v, cut.v)
        assert np.array_equal(factors.scale, cut.scale)


@pytest.mark.parametrize(
    ("patterns", "tensors"),
    [
        (("blk.1.ffn_up.weight",), ["blk.1.ffn_up.weight"]),
        (("layers.0.attention.wq.weight",), ["blk.0.attn_q.weight"]),
        (("layers.0.feed_forward.w1.weight",), ["blk.0.ffn_gate.weight"]),
        (("blk.*.attn_?",), [f"blk.{block}.attn_{part}.weight" for block in range(2) for part in "qkv"]),
        (("token_embd.weight", "blk.0.attn_q"), ["token_embd.weight", "blk.0.attn_q.weight"]),
    ],
)
@pytest.mark.parametrize("kind", ["svd", "residual", "train"])
def test_only_the_layers_that_were_asked_for(
    bench: Bench, tmp_path: Path, patterns: tuple[str, ...], tensors: list[str], kind: str
) -> None:
    job = bench.job(tmp_path / "out.nkat", selective_layers=patterns, **method(bench, kind))
    convert(job, ignore)
    assert sorted(theta_of(job.output).factors) == sorted(tensors)
    assert not torch.equal(logits(load(job.output)), logits(load(bench.base)))


def test_svd_is_of_the_weights_alone(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat", method=Method.SVD, target_size=8)
    convert(job, ignore)
    other = tmp_path / "other.txt"
    other.write_text("hello world " * 50)
    convert(replace(job, output=tmp_path / "again.nkat", calibration=(other,), seed=4), ignore)
    assert job.output.read_bytes() == (tmp_path / "again.nkat").read_bytes()
    for factors in theta_of(job.output).factors.values():
        b = factors.matrix()
        assert not b[8:].any()
        assert not b[:, 8:].any()
        assert np.abs(b[:8, :8] + b[:8, :8].T).max() < 0.05 * np.abs(b).max()


def test_theta_for_a_model_that_has_theta_takes_its_place(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "first.nkat")
    convert(job, ignore)
    second = replace(job, input=job.output, output=tmp_path / "second.nkat")
    convert(second, ignore)
    assert second.output.read_bytes() == job.output.read_bytes()


def test_an_adapter_is_written_beside_it(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat", export_lora=tmp_path / "lora.gguf")
    convert(job, ignore)
    tensors = {tensor.name for tensor in GGUFReader(tmp_path / "lora.gguf").tensors}
    assert tensors == {f"{name}.lora_{part}" for name in theta_of(job.output).factors for part in "ab"}
    with pytest.raises(ConfigError, match=r"token_embd\.weight cannot become"):
        convert(replace(job, selective_layers=("token_embd",)), ignore)


def nan_model(path: Path, tensor: str) -> Path:
    """A model one of whose tensors has a value that is no number."""
    write_llama(path, type="F32", **SIZES)
    (found,) = (one for one in GGUFReader(path).tensors if one.name == tensor)
    raw = bytearray(path.read_bytes())
    raw[found.data_offset : found.data_offset + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(raw)
    return path


def broken(folder: Path, tensor: str) -> dict[str, Any]:
    return {"input": nan_model(folder / "nan.gguf", tensor)}


def file_in(folder: Path, name: str, text: str = "") -> Path:
    (folder / name).write_text(text)
    return folder / name


def other_model(folder: Path, **settings: Any) -> Path:
    return write_llama(folder / "other.gguf", **SIZES | settings)


Changes = Callable[[Bench, Path], dict[str, Any]]

REFUSED: dict[str, tuple[Changes, str]] = {
    "another model": (lambda b, f: {"reference": other_model(f, n_ff=96)}, "is another model than base.gguf"),
    "another vocabulary": (
        lambda b, f: {"reference": other_model(f, vocab_size=400)},
        "is another model than base.gguf",
    ),
    "another tokenizer": (lambda b, f: {"reference": other_model(f, tokenizer="llama")}, "is another model"),
    "no model": (lambda b, f: {"reference": file_in(f, "r.gguf", "text")}, "r.gguf"),
    "the input itself": (lambda b, f: {"output": b.base}, "is the input itself"),
    "the reference": (lambda b, f: {"output": b.reference, "reference": b.reference}, "is an input"),
    "the text": (lambda b, f: {"output": b.text}, "is an input"),
    "the other text": (lambda b, f: {"eval_text": b.text, "output": b.text, "calibration": ()}, "an input"),
    "an adapter over the text": (lambda b, f: {"export_lora": b.text}, "is an input"),
    "no folder": (lambda b, f: {"output": f / "no" / "out.nkat"}, "there is no folder"),
    "no folder for the adapter": (lambda b, f: {"export_lora": f / "no" / "lora"}, "there is no folder"),
    "a folder": (lambda b, f: {"output": f}, "is not a regular file"),
    "a name too long": (lambda b, f: {"output": f / ("n" * 250)}, "name too long"),
    "a file as a folder": (lambda b, f: {"output": b.text / "out.nkat"}, "there is no folder"),
    "too short a text": (
        lambda b, f: {"calibration": (file_in(f, "t.txt", "hello"),)},
        "t.txt has . tokens; at least 32",
    ),
    "too short to choose by": (
        lambda b, f: {
            "calibration": (file_in(f, "t.txt", "hello world " * 24),),
            "optimize_rank": True,
            "choosing_windows": 2,
        },
        "too short to hold windows back",
    ),
    "no such layer": (lambda b, f: {"selective_layers": ("blk.0.attn_qq.weight",)}, "did you mean"),
    "no such device": (lambda b, f: {"device": "tpu"}, "tpu"),
    "a weight that is no number, svd": (
        lambda b, f: broken(f, "blk.0.attn_q.weight") | {"method": Method.SVD},
        "not finite",
    ),
    "a weight that is no number, residual": (
        lambda b, f: broken(f, "blk.0.attn_q.weight") | {"method": Method.RESIDUAL, "reference": b.reference},
        "not finite",
    ),
    "a reference that is no number": (
        lambda b, f: {"method": Method.RESIDUAL, "reference": broken(f, "blk.0.attn_q.weight")["input"]},
        "not finite",
    ),
    "a weight that is no number, train": (
        lambda b, f: broken(f, "blk.0.attn_q.weight"),
        "not finite|ran away at step 1",
    ),
    "a norm that is no number": (
        lambda b, f: (
            broken(f, "output_norm.weight")
            | {"method": Method.SVD, "evaluate": True, "eval_text": b.text, "eval_windows": 1}
        ),
        "not finite",
    ),
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("why", REFUSED)
def test_refused_in_one_line_with_nothing_written(bench: Bench, tmp_path: Path, why: str) -> None:
    changes, message = REFUSED[why]
    folder = shutil.copytree(bench.base.parent, tmp_path / "inputs")
    bench = Bench(*(folder / path.name for path in (bench.base, bench.reference, bench.text)))
    values = changes(bench, tmp_path)
    job: ConversionJob = bench.job(**{"output": tmp_path / "out.nkat"} | values)
    before = contents(tmp_path)
    with pytest.raises(NkatError, match=message) as caught:
        convert(job, ignore)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_a_reference_that_lacks_an_output_matrix(tmp_path: Path) -> None:
    own = write_llama(tmp_path / "own.gguf", type="Q4_0", tied=False, **SIZES)
    tied = write_llama(tmp_path / "tied.gguf", type="F32", **SIZES)
    text = file_in(tmp_path, "text.txt", TEXT)
    job = Bench(own, tied, text).job(
        tmp_path / "out.nkat", method=Method.RESIDUAL, reference=tied, selective_layers=("output.weight",)
    )
    with pytest.raises(ModelFileError, match=r"output\.weight"):
        convert(job, ignore)


def test_a_sidecar_of_one_file_is_not_for_another(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "theta.bin", theta_only=True)
    convert(job, ignore)
    with open_gguf(bench.reference) as other, open_gguf(bench.base) as base:
        with pytest.raises(ModelFileError, match="made for another model file"):
            open_theta(other, job.output)
        theta = open_theta(base, job.output)
        assert theta is not None
        assert theta.base_sha256 == base_sha256(base)
