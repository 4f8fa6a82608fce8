"""The whole command, with a tiny model and a peer that is a script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.gguf_files import write_llama

PEER = """#!{python}
import os, sys, time
open({pid!r}, "w").write(str(os.getpid()))
time.sleep({seconds})
print('{{"build_commit": "abc", "avg_ts": 1000.0}}')
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "tiny.gguf")


def _peer(directory: Path, seconds: float = 0.0) -> Path:
    path = directory / "llama-bench"
    text = PEER.format(python=sys.executable, pid=str(directory / "pid"), seconds=seconds)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def _command(model: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.cpu", "--model", str(model), *map(str, arguments)]


def _run(model: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(model, *arguments), capture_output=True, text=True, timeout=60)


def test_decode_beside_a_peer(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    run = _run(model, "--llama-bench", _peer(tmp_path), "--pairs", "1", "--only", "decode", "--json", file)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert said == json.loads(file.read_text(encoding="utf-8"))
    assert said["peer_decode_tokens_per_second"] == 1000
    assert said["decode_ratio"] == pytest.approx(said["decode_tokens_per_second"] / 1000)
    assert said["decode_pairs"] == 1
    assert said["llama_cpp"] == "abc"


def test_ctrl_c_takes_the_peer_along(model: Path, tmp_path: Path) -> None:
    command = _command(model, "--llama-bench", _peer(tmp_path, seconds=60), "--only", "decode")
    pid = tmp_path / "pid"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--llama-bench", "no-such-program"), "no-such-program cannot be run"),
        (("--llama-server", __file__), "cannot be run"),
        (("--only", "speed"), "no part 'speed'"),
        (("--only", "batch8"), "batch8 needs --llama-server"),
        (("--json", "no-such-directory/file"), "there is no directory no-such-directory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(model: Path, arguments: tuple[str, str], line: str) -> None:
    run = _run(model, *arguments)
    assert run.returncode == 2
    assert line in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""


def test_a_bad_model_is_said_in_one_line(tmp_path: Path) -> None:
    run = _run(tmp_path / "none.gguf")
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
