from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from engine.worker import EngineWorker
from server.settings import Settings
from tests.browser.chromium import DESKTOP, Watched, launched
from tests.server.live import LiveServer, serving
from tests.support.gguf_files import write_llama
from tests.support.stars import write_star_model

KEY = "sésame 開け"

Opener = Callable[..., Watched]
"""(server, options of the browser's context) -> a page that is watched; closed after the test."""


# Playwright's event loop runs in this thread while the browser does: it must end with these tests, since
# others run loops of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with launched() as running:
        yield running


@pytest.fixture(scope="package")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A tiny model that babbles, with theta."""
    folder: Path = tmp_path_factory.mktemp("models")
    base = write_llama(folder / "babbler.gguf", context_length=8192)
    model, _ = write_star_model(folder / "babbler.nkat", base)
    return Settings(model=model, contextsize=8192, threads=1, device="cpu", parallelrequests=4)


@pytest.fixture(scope="package")
def worker(settings: Settings) -> Iterator[EngineWorker]:
    worker = EngineWorker.start(settings.engine_config())
    yield worker
    worker.close()


@pytest.fixture(scope="package")
def open_server(worker: EngineWorker, settings: Settings) -> Iterator[LiveServer]:
    with serving(worker, settings) as server:
        yield server


@pytest.fixture(scope="package")
def locked_server(worker: EngineWorker, settings: Settings) -> Iterator[LiveServer]:
    with serving(worker, Settings(**(settings.model_dump() | {"password": KEY}))) as server:
        yield server


@pytest.fixture
def server(open_server: LiveServer) -> Iterator[LiveServer]:
    """The server without a key; every test leaves it idle."""
    yield open_server
    open_server.wait_until_idle()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    contexts = []

    def make(server: LiveServer, **options: Any) -> Watched:
        context = browser.new_context(**({"viewport": DESKTOP} | options))
        contexts.append(context)
        context.set_default_timeout(10_000)
        watched = Watched(context.new_page(), server.url)
        watched.watch()
        return watched

    yield make
    for context in contexts:
        context.close()
