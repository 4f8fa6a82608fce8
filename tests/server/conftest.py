from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.worker import EngineWorker
from server.settings import Settings
from server.stops import KeylessStops
from tests.server.live import LiveServer, serving, serving_alone
from tests.support.gguf_files import write_llama

KEY = "sésame 開け"
RECORDED_KEY = "secret"
"""The key in the recorded exchanges."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf", context_length=8192)


@pytest.fixture(scope="session")
def tiny_settings(tiny_model: Path) -> Settings:
    return Settings(model=tiny_model, contextsize=2048, threads=1, parallelrequests=8)


@pytest.fixture(scope="session")
def tiny_worker(tiny_settings: Settings) -> Iterator[EngineWorker]:
    worker = EngineWorker.start(tiny_settings.engine_config())
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def open_server(tiny_worker: EngineWorker, tiny_settings: Settings) -> Iterator[LiveServer]:
    with serving(tiny_worker, tiny_settings) as server:
        yield server


@pytest.fixture
def server(open_server: LiveServer) -> Iterator[LiveServer]:
    """The shared server without a password; every test leaves it idle, with all blocks free."""
    # Connections that the last test closed are none of this one's aborts.
    open_server.service.stops = KeylessStops()
    yield open_server
    open_server.wait_until_idle()


@pytest.fixture(scope="session")
def locked_server(tiny_worker: EngineWorker, tiny_settings: Settings) -> Iterator[LiveServer]:
    settings = Settings(**(tiny_settings.model_dump() | {"password": KEY}))
    with serving(tiny_worker, settings) as server:
        yield server


@pytest.fixture(scope="session")
def recorded_key_server(tiny_worker: EngineWorker, tiny_settings: Settings) -> Iterator[LiveServer]:
    settings = Settings(**(tiny_settings.model_dump() | {"password": RECORDED_KEY}))
    with serving(tiny_worker, settings) as server:
        yield server


@pytest.fixture(scope="session")
def demo_server(smollm2: Path) -> Iterator[LiveServer]:
    """SmolLM2, for what needs a model that can speak."""
    settings = Settings(model=smollm2, contextsize=512, threads=2)
    with serving_alone(settings) as server:
        yield server
