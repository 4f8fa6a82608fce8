"""Every request tells the engine who asks."""

from typing import Any

import pytest

from tests.server.dialects.scripted import ScriptedWorker
from tests.server.dialects.test_refusal import ASKING
from tests.server.live import LiveServer


@pytest.mark.parametrize("path", ASKING)
def test_a_request_carries_its_address(path: str, scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say("Hi")
    body: dict[str, Any] = ASKING[path]
    assert server.post(path, body).status == 200
    assert worker.asked[-1].client == "127.0.0.1"
