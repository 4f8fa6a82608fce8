import gc
from collections.abc import Iterator

import pytest

from converter.tuning import bench


@pytest.fixture(autouse=True, scope="session")
def short_timings() -> Iterator[None]:
    """What is timed here need not be exact: two groups of steps behind a few tokens."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_PROMPT", 8), ("_NEW_TOKENS", 4), ("_ITERATIONS", 1)):
            patch.setattr(bench, name, value)
        # Each measurement begins with a collection, which takes its time over all the imported modules.
        gc.collect()
        gc.freeze()
        yield
        gc.unfreeze()
