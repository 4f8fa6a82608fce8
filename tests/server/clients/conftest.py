from collections.abc import Iterator

import pytest

from server.settings import Settings
from server.stops import KeylessStops
from tests.server.clients.lite import Lite
from tests.server.clients.sillytavern import SillyTavern
from tests.server.conftest import KEY
from tests.server.dialects.scripted import ScriptedWorker, scripted_server
from tests.server.live import LiveServer, serving_alone


@pytest.fixture(scope="package")
def slow_open_server(tiny_settings: Settings) -> Iterator[LiveServer]:
    """An engine that computes one generation at a time and reads prompts in many small steps."""
    changes = {"parallelrequests": 1, "contextsize": 8192, "blasbatchsize": 16}
    settings = tiny_settings.model_copy(update=changes)
    with serving_alone(settings) as server:
        yield server


@pytest.fixture
def slow_server(slow_open_server: LiveServer) -> Iterator[LiveServer]:
    """The slow server; every test leaves it idle."""
    # Connections that the last test closed are none of this one's aborts.
    slow_open_server.service.stops = KeylessStops()
    yield slow_open_server
    slow_open_server.wait_until_idle()


@pytest.fixture(scope="package")
def scripted() -> Iterator[tuple[LiveServer, ScriptedWorker]]:
    """A server and the worker that says what tests tell it to, for calls of tools and thoughts."""
    with scripted_server(Settings(threads=1, parallelrequests=4)) as pair:
        yield pair


@pytest.fixture
def key() -> str:
    """The locked server's key as a header carries it: its UTF-8 bytes."""
    return KEY.encode().decode("latin-1")


@pytest.fixture
def page(server: LiveServer) -> Lite:
    """A page of KoboldAI Lite at the server without a password."""
    return Lite(server)


@pytest.fixture
def tavern(server: LiveServer) -> SillyTavern:
    """SillyTavern at the server without a password, its user having typed no key."""
    return SillyTavern(server)
