import pytest

from tests.converter.jobs import Bench, write_bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Files that no test changes."""
    return write_bench(tmp_path_factory.mktemp("bench"))
