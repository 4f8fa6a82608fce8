import pytest

from engine.gguf import open_gguf
from engine.tokenizer import Tokenizer
from server.demo import DemoModelError
from tests.support.models import gemma_path, smollm2_path


@pytest.fixture(scope="session")
def smollm2() -> Tokenizer:
    try:
        path = smollm2_path()
    except DemoModelError as error:
        pytest.skip(str(error))
    with open_gguf(path) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.fixture(scope="session")
def gemma() -> Tokenizer:
    try:
        path = gemma_path()
    except OSError as error:
        pytest.skip(str(error))
    with open_gguf(path) as file:
        return Tokenizer.from_metadata(file.metadata)
