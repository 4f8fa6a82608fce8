"""An interrupted conversion goes on to the bytes that an uninterrupted one writes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from converter import factors
from converter.conversion import convert
from converter.factors import Progress
from converter.job import ConversionJob, Method
from engine.errors import ConfigError
from tests.converter.jobs import TEXT, Bench, ignore, write_bench


@pytest.fixture(autouse=True)
def keep_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "_SAVE_SECONDS", 0.0)


def interrupting(stage: str, at: int) -> Progress:
    def progress(now: str, done: int, total: int, note: str) -> None:
        if (now, done) == (stage, at):
            raise KeyboardInterrupt

    return progress


def interrupted(job: ConversionJob, stage: str, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(job, interrupting(stage, at))
    assert not job.output.exists()
    assert job.checkpoint.exists()


METHODS = {
    "train": {"method": Method.TRAIN},
    "residual": {"method": Method.RESIDUAL},
    "distil": {"method": Method.TRAIN},
}


def job_of(bench: Bench, kind: str, output: Path) -> ConversionJob:
    reference = None if kind == "train" else bench.reference
    return bench.job(output, reference=reference, steps=5, **METHODS[kind])


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ("train", [("train", 2)]),
        ("train", [("train", 2), ("train", 4), ("write", 0)]),
        ("residual", [("residual", 2)]),
        ("residual", [("residual", 2), ("write", 0)]),
        ("distil", [("residual", 2), ("train", 1), ("train", 4)]),
    ],
)
def test_the_bytes_are_those_of_one_go(
    bench: Bench, tmp_path: Path, kind: str, stops: list[tuple[str, int]]
) -> None:
    whole, job = job_of(bench, kind, tmp_path / "whole.nkat"), job_of(bench, kind, tmp_path / "out.nkat")
    convert(whole, ignore)
    for number, (stage, at) in enumerate(stops):
        interrupted(replace(job, resume=number > 0), stage, at)
    stages: list[tuple[str, int]] = []
    convert(replace(job, resume=True), lambda stage, done, total, note: stages.append((stage, done)))
    assert job.output.read_bytes() == whole.output.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.nkat", "whole.nkat"]
    # and not by doing all of it again
    last = stops[-1]
    assert all(one != (last[0], last[1] - 1) for one in stages if last[0] in ("train", "residual"))


@pytest.fixture(scope="module")
def with_output(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """As `bench`, with output matrices."""
    return write_bench(tmp_path_factory.mktemp("with_output"), tied=False)


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ("train", [("train", 2)]),
        ("residual", [("residual", 2), ("write", 0)]),
        ("distil", [("residual", 2), ("train", 1)]),
        ("distil", [("train", 3), ("write", 0)]),
    ],
)
def test_an_output_matrix_goes_on_like_the_blocks(
    with_output: Bench, tmp_path: Path, kind: str, stops: list[tuple[str, int]]
) -> None:
    """It is derived behind the last block, so that a training must not find it derived once more."""
    selected = ("output.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight")
    whole, job = (
        replace(job_of(with_output, kind, tmp_path / name), selective_layers=selected, learning_rate=0.02)
        for name in ("whole.nkat", "out.nkat")
    )
    made = convert(whole, ignore).theta.factors
    assert sorted(made) == sorted(selected)
    assert made["output.weight"].scale.any()
    for number, (stage, at) in enumerate(stops):
        interrupted(replace(job, resume=number > 0), stage, at)
    convert(replace(job, resume=True), ignore)
    assert job.output.read_bytes() == whole.output.read_bytes()


def resumable(bench: Bench, output: Path) -> ConversionJob:
    job = job_of(bench, "distil", output)
    interrupted(job, "train", 3)
    return replace(job, resume=True)


def other_text(folder: Path) -> Path:
    path = folder / "other.txt"
    path.write_text(TEXT.upper())
    return path


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (lambda bench, folder: {"rank": 2}, "rank"),
        (lambda bench, folder: {"gamma": 0.9}, "gamma"),
        (lambda bench, folder: {"steps": 6}, "steps"),
        (lambda bench, folder: {"seed": 1}, "seed"),
        (lambda bench, folder: {"learning_rate": 1e-3}, "learning rate"),
        (lambda bench, folder: {"windows": 1}, "windows"),
        (lambda bench, folder: {"window": 16}, "ctx"),
        (lambda bench, folder: {"calibration": (other_text(folder),)}, "calibration text"),
        (lambda bench, folder: {"selective_layers": ("*attn_q*",)}, "selective layers"),
        (lambda bench, folder: {"reference": None}, "reference"),
        (lambda bench, folder: {"reference": bench.base}, "reference"),
        (lambda bench, folder: {"input": bench.reference}, "model"),
        (lambda bench, folder: {"method": Method.RESIDUAL}, "method"),
    ],
)
def test_another_conversion_does_not_go_on_from_it(
    bench: Bench, tmp_path: Path, changes: Callable[[Bench, Path], dict[str, Any]], named: str
) -> None:
    job = resumable(bench, tmp_path / "out.nkat")
    before = job.checkpoint.read_bytes()
    with pytest.raises(ConfigError, match=rf"another conversion \(different: .*{named}") as caught:
        convert(replace(job, **changes(bench, tmp_path)), ignore)
    assert "\n" not in str(caught.value)
    assert job.checkpoint.read_bytes() == before
    assert not job.output.exists()


def test_a_checkpoint_is_neither_overlooked_nor_invented(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(tmp_path / "out.nkat", resume=True)
    with pytest.raises(ConfigError, match="is not there, so that nothing can be resumed"):
        convert(job, ignore)
    job.checkpoint.write_bytes(b"anything")
    with pytest.raises(ConfigError, match="left by an interrupted conversion; say --resume"):
        convert(replace(job, resume=False), ignore)
    with pytest.raises(ConfigError, match="no checkpoint, or a damaged one"):
        convert(job, ignore)
    assert job.checkpoint.read_bytes() == b"anything"
    assert not job.output.exists()


def test_a_truncated_checkpoint_is_one_line(bench: Bench, tmp_path: Path) -> None:
    job = resumable(bench, tmp_path / "out.nkat")
    raw = job.checkpoint.read_bytes()
    job.checkpoint.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ConfigError, match="a damaged one; delete it"):
        convert(job, ignore)


def test_steps_are_kept_at_the_latest_after_so_many_seconds(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "_SAVE_SECONDS", 3600.0)
    job = bench.job(tmp_path / "out.nkat")
    with pytest.raises(KeyboardInterrupt):
        convert(job, interrupting("train", 2))
    assert not job.checkpoint.exists()
    # a finished training is worth keeping at once: what follows can still be interrupted
    interrupted(job, "write", 0)
    assert torch.load(job.checkpoint, weights_only=True)["steps"] == 3
