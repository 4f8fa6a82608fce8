from pathlib import Path

import pytest

from engine.gguf import open_gguf
from engine.grammar import GrammarCompiler
from engine.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Tokenizer:
    with open_gguf(smollm2) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.fixture(scope="session")
def smollm2_compiler(smollm2_tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(smollm2_tokenizer)
