"""The command, as its own process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.native import native_kernels
from tests.support.gguf_files import write_llama

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "backend_selector", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_text(tiny_model: Path, sidecar: Path) -> None:
    done = run("--model", tiny_model, "--theta-path", sidecar, "--device", "cpu", "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("Tiny random", "nkat", "rank 2 for 1 tensors", "cpu", "1024", "--lora", "as asked for"):
        assert words in done.stdout


def test_json(star_model: Path) -> None:
    done = run(
        "--model", star_model, "--theta-gamma", "0.5", "--contextsize", "64", "--device", "cpu", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    choice = said["choice"]
    assert choice["engine"]["value"] == "nkat"
    assert choice["gamma"] == {"value": 0.5, "reason": "as asked for"}
    assert choice["context"]["value"] == 64
    assert choice["layers"]["value"] == [["cpu", 2]]
    assert choice["koboldcpp"][0] == "koboldcpp"
    assert said["model"]["path"] == str(star_model)
    assert said["machine"]["kernels"] == [*native_kernels(), "reference"]


def test_wishes_for_gpus_reach_the_choice(tiny_model: Path) -> None:
    wishes = ("--gpulayers", "2", "--tensor-split", "7,3", "--maingpu", "0", "--quantkv", "1")
    said = json.loads(run("--model", tiny_model, *wishes, "--device", "cpu", "--json").stdout)
    assert said["choice"]["koboldcpp"][-2:] == ["--quantkv", "1"]
    (share,) = said["choice"]["shares"]
    assert (share["device"], share["layers"], share["workspace"]) == ("cpu", 2, 0)


def test_theta_can_be_left_out(star_model: Path) -> None:
    done = run("--model", star_model, "--no-theta", "--device", "cpu", "--json")
    assert json.loads(done.stdout)["choice"]["engine"]["value"] == "baseline"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--device", "gpu"), "must be auto, cpu, cuda or cuda:N"),
        (("--device", "cpu", "--contextsize", str(2**50)), "--contextsize"),
        (("--theta-gamma", "7"), "--theta-gamma"),
        (("--tensor-split", "a,b"), "--tensor-split"),
        (("--device", "cuda:1", "--tensor-split", "1,1"), "leave one of them out"),
        (("--theta-path", "/no/such.bin"), "/no/such.bin"),
    ],
)
def test_errors_are_one_line_and_2(tiny_model: Path, flags: tuple[str, ...], words: str) -> None:
    done = run("--model", tiny_model, *flags)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("nkat: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_foreign_theta_is_2(tiny_model: Path, foreign_sidecar: Path) -> None:
    done = run("--model", tiny_model, "--theta-path", foreign_sidecar)
    assert done.returncode == 2
    assert "another model file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "line\nend\udcff.gguf", metadata={"general.name": None})
    done = run("--model", path, "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert "line?end?" in done.stdout
    path.write_bytes(b"no model")
    done = run("--model", path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
