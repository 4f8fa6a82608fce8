"""Random bodies for every endpoint that takes one.

NKATTEST_FULL=1 sends 500 to each instead of 40.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.fuzz.bodies import bodies
from tests.server.fuzz.exchange import exchange
from tests.server.fuzz.operations import Operation, operations
from tests.server.fuzz.rules import check
from tests.server.live import LiveServer


@pytest.mark.parametrize("operation", operations("POST"), ids=str)
def test_random_bodies(fuzzed: LiveServer, operation: Operation) -> None:
    @settings(settings.get_profile("fuzz"))
    @given(bodies(operation), st.booleans())
    def send(body: bytes, chunked: bool) -> None:
        check(operation, exchange(fuzzed.port, "POST", operation.path, body, chunked=chunked))

    send()
