from pathlib import Path

import pytest

from engine.gguf import open_gguf
from engine.tokenizer import Tokenizer
from tests.support.models import gemma_path


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Tokenizer:
    with open_gguf(smollm2) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.fixture(scope="session")
def gemma() -> Tokenizer:
    try:
        path = gemma_path()
    except OSError as error:
        pytest.skip(f"gemma cannot be fetched: {error}")
    with open_gguf(path) as file:
        return Tokenizer.from_metadata(file.metadata)
