from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from server.demo import DemoModelError
from tests.support.gguf_files import write_llama
from tests.support.models import smollm2_path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", context_length=2048)


@pytest.fixture(scope="session")
def smollm2_engine() -> Engine:
    """SmolLM2 with room for eight short requests; tests leave it idle."""
    try:
        path = smollm2_path()
    except DemoModelError as error:
        pytest.skip(str(error))
    return Engine.load(EngineConfig(path, context_length=2048, device="cpu", threads=2))
