"""A conversion that is killed leaves a whole file or none, and one that is interrupted can go on."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from converter.conversion import convert
from converter.job import Method
from engine.gguf import open_gguf
from engine.theta import read_theta
from tests.converter.jobs import Bench, ignore

PRELUDE = """
import os, runpy, signal, sys
import converter.atomic, converter.factors, converter.writer

converter.factors._SAVE_SECONDS = 0.0

def die_at(owner, name, call):
    whole, calls = getattr(owner, name), []
    def dying(*arguments, **more):
        calls.append(0)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **more)
    setattr(owner, name, dying)

{death}
runpy.run_module("converter", run_name="__main__", alter_sys=True)
"""

MOMENTS = {
    # sizes are padded once a tensor for the header, once for the header, and again behind each tensor's data
    "some tensors are copied": "die_at(converter.writer, '_padded', 90)",
    "all is written but not on disk": "die_at(converter.atomic.os, 'fsync', 1)",
    "it has its name": "die_at(converter.atomic, '_sync_folder', 1)",
}


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE)


def is_whole(path: Path) -> bool:
    with open_gguf(path) as file:
        return read_theta(file, file.tensors) is not None


def test_a_killed_conversion_leaves_a_whole_file_or_none(bench: Bench, tmp_path: Path) -> None:
    """Killed by itself, so that the moment is exact: while it writes the file, and around its renaming."""
    running = {}
    for number, (moment, death) in enumerate(MOMENTS.items()):
        output = tmp_path / f"{number}.nkat"
        flags = bench.arguments(output, "--method", "svd", "--no-eval")
        running[moment] = output, start(PRELUDE.format(death=death), *flags)
    left, there = {}, {}
    for moment, (output, process) in running.items():
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, errors
        there[moment] = output.exists()
        left[moment] = sum(path.stat().st_size for path in tmp_path.glob(f".{output.name}.partial"))
        # what was begun stands in nobody's way
        if output.exists():
            assert is_whole(output)
        convert(bench.job(output, method=Method.SVD), ignore)
        assert is_whole(output)
        assert not list(tmp_path.glob(f".{output.name}*"))
    size = (tmp_path / "0.nkat").stat().st_size
    assert list(there.values()) == [False, False, True]
    assert 0 < left["some tensors are copied"] < size
    assert list(left.values())[1:] == [size, 0]


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_training_goes_on_from_where_it_was_stopped(
    bench: Bench, tmp_path: Path, how: signal.Signals
) -> None:
    output = tmp_path / "out.nkat"
    job = bench.job(output, steps=2000)
    flags = bench.arguments(output, "--no-eval", "--steps", "2000")
    process = start(PRELUDE.format(death=""), *flags)
    wait_for(job.checkpoint, process)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert not output.exists()
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert errors.splitlines()[-1] == f"nkat: interrupted; say --resume to go on from {job.checkpoint}"
        assert "Traceback" not in errors
        assert [path.name for path in tmp_path.iterdir()] == ["out.nkat.checkpoint"]
    else:
        assert process.returncode == -signal.SIGKILL
    steps: list[int] = []

    def soon(stage: str, done: int, total: int, note: str) -> None:
        steps.append(done)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(replace(job, resume=True), soon)
    assert steps == [steps[0], steps[0] + 1, steps[0] + 2]
    assert steps[0] > 1
