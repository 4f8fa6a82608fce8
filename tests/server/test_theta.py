"""Theta from the command line to the reply."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.writer import write_sidecar
from engine.gguf import open_gguf
from engine.native import native_kernels
from engine.theta.names import theta_names
from engine.worker import EngineWorker
from server.commands.start import choose_start
from server.settings import Settings
from tests.server.live import LiveServer, serving
from tests.server.test_cli import ROOT, run
from tests.support.gguf_files import write_llama
from tests.support.stars import write_star_model

ASK = {"prompt": "hello world and the", "max_length": 24, "temperature": 0, "ban_eos_token": True}


@pytest.fixture(scope="module")
def star_model(tiny_model: Path) -> Path:
    return write_star_model(tiny_model.with_suffix(".nkat"), tiny_model)[0]


@pytest.fixture(scope="module")
def sidecar(tiny_model: Path) -> Path:
    path = tiny_model.with_name("theta_rank4.bin")
    write_sidecar(write_star_model(tiny_model.with_name("unused.nkat"), tiny_model)[1], path, "llama")
    return path


@contextmanager
def served(**settings: Any) -> Iterator[LiveServer]:
    given = Settings(contextsize=512, threads=1, device="cpu", **settings)
    worker = EngineWorker.start(choose_start(given.engine_config()).config)
    try:
        with serving(worker, given) as server:
            yield server
    finally:
        worker.close()


def text(**settings: Any) -> str:
    with served(**settings) as server:
        answer = server.post("/api/v1/generate", ASK)
        assert answer.status == 200
        said: str = answer.json["results"][0]["text"]
    return said


@pytest.fixture(scope="module")
def baseline(tiny_model: Path) -> str:
    return text(model=tiny_model)


def test_theta_changes_the_reply(star_model: Path, baseline: str) -> None:
    assert text(model=star_model) != baseline


def test_a_sidecar_is_as_good(tiny_model: Path, star_model: Path, sidecar: Path) -> None:
    assert text(model=tiny_model, theta_path=sidecar) == text(model=star_model)


def test_no_theta_is_the_baseline(tiny_model: Path, star_model: Path, sidecar: Path, baseline: str) -> None:
    assert text(model=star_model, theta=False) == baseline
    assert text(model=tiny_model, theta_path=sidecar, theta=False) == baseline


def test_gamma_0_is_the_baseline(star_model: Path, baseline: str) -> None:
    assert text(model=star_model, theta_gamma=0.0) == baseline


def test_theta_can_be_switched_while_the_server_runs(star_model: Path, baseline: str) -> None:
    with served(model=star_model) as server:

        def ask() -> str:
            said: str = server.post("/api/v1/generate", ASK).json["results"][0]["text"]
            return said

        starred = ask()
        server.worker.set_theta(enabled=False)
        assert ask() == baseline != starred
        server.worker.set_theta(enabled=True)
        assert ask() == starred


def test_what_the_user_leaves_open_is_filled_in(star_model: Path) -> None:
    start = choose_start(Settings(model=star_model, device="cpu").engine_config())
    config = start.config
    assert (config.theta, config.gamma, config.device) == (True, 0.97, "cpu")
    assert config.context_length == 8192
    assert config.kv_tokens is not None
    assert config.threads is not None
    assert config.kernels == (*native_kernels(), "reference")[0]


def test_what_the_user_says_counts(star_model: Path) -> None:
    given = Settings(
        model=star_model,
        device="cpu",
        kernels="reference",
        contextsize=300,
        kvtokens=700,
        threads=1,
        theta_gamma=0.5,
    ).engine_config()
    assert choose_start(given).config == given


def test_the_choice_needs_no_torch(star_model: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.config import EngineConfig\n"
        "from backend_selector.cuda import has_driver\nfrom server.commands.start import choose_start\n"
        f"choose_start(EngineConfig(Path({str(star_model)!r})))\n"
        "assert has_driver() or 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)


def test_the_start_table(star_model: Path) -> None:
    code = (
        "import os, signal, sys, threading\nimport server.commands.web as web\n"
        "web.run = lambda worker, settings, listener, ready: ready()\n"
        f"sys.argv = ['nkat', 'serve', '--model', {str(star_model)!r}, '--port', '0', '--device', 'cpu',\n"
        "            '--contextsize', '300', '--threads', '1', '--theta-gamma', '0.95',\n"
        "            '--kernels', 'reference']\n"
        "from server.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    for words in ("nkat, rank 4, gamma 0.95", "cpu, reference kernels", "300 tokens"):
        assert words in done.stdout
    assert "WARNING" not in done.stderr


def _nan_scales(star: Path, model: Path, folder: Path) -> tuple[str, ...]:
    with open_gguf(star) as file:
        _, _, scale = theta_names("blk.0.attn_q.weight")
        scales = file.data(scale).tobytes()
    data = star.read_bytes()
    assert data.count(scales) >= 1
    damaged = folder / "nan.nkat"
    damaged.write_bytes(data.replace(scales, np.full(4, np.nan, np.float32).tobytes()))
    return ("--model", str(damaged))


def _cut_short(star: Path, model: Path, folder: Path) -> tuple[str, ...]:
    damaged = folder / "short.nkat"
    damaged.write_bytes(star.read_bytes()[:-3000])
    return ("--model", str(damaged))


def _another_base(star: Path, model: Path, folder: Path) -> tuple[str, ...]:
    other = write_llama(folder / "other.gguf", seed=7, context_length=8192)
    sidecar = folder / "theta.bin"
    write_sidecar(write_star_model(folder / "o.nkat", other)[1], sidecar, "llama")
    return ("--model", str(model), "--theta-path", str(sidecar))


def _no_theta_inside(star: Path, model: Path, folder: Path) -> tuple[str, ...]:
    return ("--model", str(model), "--theta-path", str(model))


def _no_file(star: Path, model: Path, folder: Path) -> tuple[str, ...]:
    return ("--model", str(model), "--theta-path", str(folder / "none.bin"))


def _gamma(star: Path, model: Path, folder: Path) -> tuple[str, ...]:
    return ("--model", str(star), "--theta-gamma", "1.5")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_nan_scales, "not finite"),
        (_cut_short, "short.nkat"),
        (_another_base, "another model file"),
        (_no_theta_inside, "holds no theta"),
        (_no_file, "none.bin"),
        (_gamma, "--theta-gamma"),
    ],
)
def test_bad_theta_is_one_line_and_2(
    star_model: Path,
    tiny_model: Path,
    tmp_path: Path,
    fault: Callable[[Path, Path, Path], tuple[str, ...]],
    words: str,
) -> None:
    done = run("serve", "--quiet", "--port", "0", *fault(star_model, tiny_model, tmp_path))
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("nkat: ")
