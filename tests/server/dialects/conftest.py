from collections.abc import Iterator

import pytest

from server.settings import Settings
from tests.server.conftest import KEY
from tests.server.dialects.scripted import ScriptedWorker, scripted_server
from tests.server.live import LiveServer

SCRIPTED = Settings(threads=1, parallelrequests=4)


@pytest.fixture(scope="package")
def scripted() -> Iterator[tuple[LiveServer, ScriptedWorker]]:
    """A server and the worker that says what tests tell it to."""
    with scripted_server(SCRIPTED) as pair:
        yield pair


@pytest.fixture(scope="package")
def locked_scripted() -> Iterator[LiveServer]:
    """The same kind of server, with a password."""
    with scripted_server(Settings(**(SCRIPTED.model_dump() | {"password": KEY}))) as (server, _):
        yield server
