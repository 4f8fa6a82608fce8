from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from engine.worker import EngineWorker
from server.guesses import GuessLimit
from server.settings import Settings
from tests.server.fuzz.exchange import exchange
from tests.server.live import LiveServer, serving
from tests.support.environment import FULL

EXAMPLES = 500 if FULL else 40
"""Bodies for each endpoint. The full run draws others each time, the usual one always the same."""

settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES,
    derandomize=not FULL,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="session")
def fuzz_worker(tiny_model: Path) -> Iterator[EngineWorker]:
    config = Settings(model=tiny_model, contextsize=256, threads=1, parallelrequests=8).engine_config()
    worker = EngineWorker.start(config)
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def fuzz_server(
    fuzz_worker: EngineWorker, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """Short replies and a short context: what is tested is what surrounds them."""
    saves = tmp_path_factory.mktemp("saves") / "saves.json"
    settings = Settings(
        model=tiny_model,
        contextsize=256,
        genlimit=8,
        parallelrequests=8,
        maxrequestsize=4,
        savedatafile=saves,
    )
    with serving(fuzz_worker, settings) as server:
        server.service.guesses = GuessLimit(sleep=at_once)
        yield server


async def at_once(seconds: float) -> None:
    """Hundreds of random names would be slowed."""


@pytest.fixture
def fuzzed(fuzz_server: LiveServer) -> Iterator[LiveServer]:
    """The server, which after every test is idle, has all blocks back, and still answers."""
    yield fuzz_server
    fuzz_server.wait_until_idle()
    answer = exchange(fuzz_server.port, "POST", "/api/v1/generate", b'{"prompt": "hello", "max_length": 2}')
    assert answer.status == 200
    assert answer.json["results"][0]["completion_tokens"] <= 2
