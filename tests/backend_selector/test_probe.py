"""What is found out about real files and this machine."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend_selector import cuda, probe
from backend_selector.facts import NOTHING, Wishes
from backend_selector.probe import probe_file, probe_machine
from backend_selector.select import select_backend
from engine.architectures import CacheShape
from engine.config import EngineConfig
from engine.errors import ModelFileError
from engine.gguf import GGUFFile, open_gguf
from engine.native import native_kernels
from tests.backend_selector.machines import LAPTOP
from tests.backend_selector.theta_files import TENSOR, theta_keys, theta_tensors, write_sidecar
from tests.support.gguf_files import write_llama

ROOT = Path(__file__).resolve().parents[2]


def test_a_plain_model(tiny_model: Path) -> None:
    facts = probe_file(tiny_model)
    with open_gguf(tiny_model) as file:
        tensors = list(file.tensors.values())
    assert (facts.architecture, facts.name, facts.quantisation) == ("llama", "Tiny random", "Q4_1")
    assert facts.size == tiny_model.stat().st_size
    assert facts.tensor_types == ("F32", "Q4_1")
    assert (facts.layers, facts.trained_context) == (2, 256)
    assert facts.cache_shape == CacheShape(2, 2, 16, 16)
    assert facts.parameters == sum(info.n_elements for info in tensors)
    whole = facts.whole
    assert whole.dense + whole.other == 4 * facts.parameters
    assert whole.other == 4 * 5 * 64
    assert whole.packed == whole.planes == sum(info.n_bytes for info in tensors if len(info.shape) > 1)
    assert facts.tied
    assert facts.output == replace(NOTHING, other=4 * 64)
    assert (facts.theta, facts.sha256, facts.surplus) == (None, None, False)


def test_an_output_matrix_of_its_own(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "own.gguf", tied=False)
    facts = probe_file(path)
    assert not facts.tied
    with open_gguf(path) as file:
        matrix = file.tensors["output.weight"]
    assert facts.output.packed == matrix.n_bytes
    assert facts.output.other == 4 * 64


def test_theta_inside(star_model: Path, tiny_model: Path) -> None:
    facts, plain = probe_file(star_model), probe_file(tiny_model)
    assert facts.theta is not None
    assert (facts.theta.rank, facts.theta.method, facts.theta.tensors) == (2, "svd", 1)
    assert facts.theta.gamma == pytest.approx(0.95)
    assert facts.surplus
    assert (facts.parameters, facts.tensor_types) == (plain.parameters, plain.tensor_types)
    assert facts.whole.other == plain.whole.other + 4 * 2 * (64 + 64)
    assert facts.whole.planes == plain.whole.planes + (4 + 1) * 2 * 64
    assert select_backend(facts, LAPTOP, Wishes()).engine.value == "nkat"


def test_a_sidecar(tiny_model: Path, sidecar: Path, star_model: Path) -> None:
    facts = probe_file(tiny_model, sidecar)
    assert facts.theta is not None
    assert facts.theta.base_sha256 == facts.sha256
    assert not facts.surplus
    assert select_backend(facts, LAPTOP, Wishes(theta_path=sidecar)).engine.value == "nkat"
    # A .nkat file counts as the model that it was made from.
    assert probe_file(star_model, sidecar).sha256 == facts.sha256


def test_a_sidecar_of_another_model(tiny_model: Path, foreign_sidecar: Path) -> None:
    facts = probe_file(tiny_model, foreign_sidecar)
    with pytest.raises(ModelFileError, match=r"f{12}"):
        select_backend(facts, LAPTOP, Wishes(theta_path=foreign_sidecar))


def test_no_hash_without_need(star_model: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: GGUFFile) -> str:
        raise AssertionError("hashes the whole model")

    monkeypatch.setattr(GGUFFile, "sha256", refuse)
    probe_file(tiny_model)
    probe_file(star_model)


@pytest.mark.parametrize(
    ("changes", "shape", "words"),
    [
        ({"version": 9}, (64, 64), "version 9"),
        ({"rank": 3}, (64, 64), "rank 3"),
        ({"gamma": 2.0}, (64, 64), "between 0 and 1"),
        ({"tensor_count": 5}, (64, 64), "promises"),
        ({}, (32, 64), TENSOR),
        ({"version": None}, (64, 64), "holds no theta"),
    ],
)
def test_hostile_sidecars(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], shape: tuple[int, int], words: str
) -> None:
    path = write_sidecar(tmp_path / "theta.bin", theta_keys("0" * 64, **changes), theta_tensors(*shape))
    with pytest.raises(ModelFileError, match=words) as caught:
        probe_file(tiny_model, path)
    assert str(path) in str(caught.value)


def test_hostile_models(tmp_path: Path) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
    alien = write_llama(tmp_path / "alien.gguf", architecture="alien")
    for path in (junk, alien, tmp_path, tmp_path / "missing.gguf"):
        with pytest.raises(ModelFileError, match=path.name):
            probe_file(path)


def test_names_are_printable(tmp_path: Path) -> None:
    named = write_llama(tmp_path / "x.gguf", metadata={"general.name": "\x1b[31mred\n"})
    assert probe_file(named).name == "?[31mred"
    numbered = write_llama(tmp_path / "y.gguf", metadata={"general.name": 7})
    assert probe_file(numbered).name == "y"


def test_this_machine() -> None:
    facts = probe_machine()
    assert facts.cpu.physical_cores >= 1
    assert 0 < facts.available_memory <= facts.total_memory
    assert facts.python.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert facts.torch is not None
    assert facts.kernels == (*native_kernels(), "reference")


def test_a_machine_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_read", lambda path: "")
    facts = probe_machine()
    assert facts.available_memory == facts.total_memory // 2
    assert facts.cpu.physical_cores >= 1


def test_a_driver_without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.probe_devices() == ((), None)


def test_a_driver_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def fail(index: int) -> None:
        raise RuntimeError("CUDA error: device is busy\nCompile with more to see more")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert cuda.probe_devices() == ((), "CUDA error: device is busy")


def test_nothing_imports_torch() -> None:
    code = (
        "import sys, backend_selector.cli, backend_selector.report, backend_selector.diagnosis\n"
        "import backend_selector.probe, backend_selector.select, server.commands.doctor\n"
        "assert 'torch' not in sys.modules\n"
        "from backend_selector import cuda\n"
        "backend_selector.probe.probe_machine()\n"
        "assert cuda.has_driver() or 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_the_engine_agrees(tiny_model: Path) -> None:
    from engine.engine import Engine

    choice = select_backend(probe_file(tiny_model), probe_machine(), Wishes(device="cpu"))
    engine = Engine.load(EngineConfig(tiny_model, device="cpu", threads=1))
    assert engine.info.context_length == choice.context.value
    assert engine.snapshot().blocks_total * 16 == choice.kv_tokens.value
