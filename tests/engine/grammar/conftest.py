import pytest

from engine.gguf import open_gguf
from engine.grammar import GrammarCompiler
from engine.tokenizer import Tokenizer
from server.demo import DemoModelError
from tests.support.models import smollm2_path


@pytest.fixture(scope="session")
def smollm2_tokenizer() -> Tokenizer:
    try:
        path = smollm2_path()
    except DemoModelError as error:
        pytest.skip(str(error))
    with open_gguf(path) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.fixture(scope="session")
def smollm2_compiler(smollm2_tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(smollm2_tokenizer)
