import hashlib
from pathlib import Path

import pytest

from tests.backend_selector.theta_files import theta_keys, write_sidecar, write_star_model
from tests.support.gguf_files import write_llama


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny_model(folder: Path) -> Path:
    """Two layers, 64 wide, 2 KV heads of 16, trained on 256 tokens."""
    return write_llama(folder / "tiny.gguf")


@pytest.fixture(scope="session")
def sidecar(folder: Path, tiny_model: Path) -> Path:
    sha256 = hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    return write_sidecar(folder / "theta_rank2.bin", theta_keys(sha256))


@pytest.fixture(scope="session")
def foreign_sidecar(folder: Path) -> Path:
    return write_sidecar(folder / "foreign.bin", theta_keys("f" * 64))


@pytest.fixture(scope="session")
def star_model(folder: Path, tiny_model: Path) -> Path:
    return write_star_model(folder / "tiny.nkat", tiny_model)
