from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.gguf import open_gguf
from engine.tokenizer import Tokenizer
from tests.support.gguf_files import write_llama


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", context_length=2048)


@pytest.fixture(scope="session")
def smollm2_engine(smollm2: Path) -> Engine:
    """SmolLM2 with room for eight short requests; tests leave it idle."""
    return Engine.load(EngineConfig(smollm2, context_length=2048, device="cpu", threads=2))


@pytest.fixture(scope="session")
def gpt2_tokenizer(tiny_model: Path) -> Tokenizer:
    """No BOS in front; 1 is <|im_start|> (BOS), 2 is <|im_end|> (EOS)."""
    with open_gguf(tiny_model) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.fixture(scope="session")
def llama_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """BOS in front; 1 is <s> (BOS), 2 is </s> (EOS)."""
    path = write_llama(tmp_path_factory.mktemp("tiny") / "llama.gguf", tokenizer="llama", n_layers=1)
    with open_gguf(path) as file:
        return Tokenizer.from_metadata(file.metadata)
