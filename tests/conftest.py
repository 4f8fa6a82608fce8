from pathlib import Path

import pytest

from server.demo import DemoModelError
from tests.support.models import smollm2_path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1."""
    try:
        return smollm2_path()
    except DemoModelError as error:
        pytest.skip(str(error))
