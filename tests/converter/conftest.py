import gc
from collections.abc import Iterator

import pytest
import torch

from tests.converter.jobs import Bench, write_bench


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny models gain nothing from more, and lose much to waiting beside other programs."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def frozen() -> Iterator[None]:
    """Each timing begins with a garbage collection, which would take its time over all imported modules."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Files that no test changes."""
    return write_bench(tmp_path_factory.mktemp("bench"))
