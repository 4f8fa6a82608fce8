import pytest

from converter.tuning import bench


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch, frozen: None) -> None:
    """What is timed here need not be exact: two groups of steps behind a few tokens."""
    for name, value in (("_PROMPT", 8), ("_NEW_TOKENS", 4), ("_ITERATIONS", 1)):
        monkeypatch.setattr(bench, name, value)
