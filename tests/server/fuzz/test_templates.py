"""Models whose chat template is broken or hostile: chats are still answered, with an adapter's tags."""

import json
from pathlib import Path

import pytest

from engine.worker import EngineWorker
from server.settings import Settings
from tests.server.fuzz.exchange import exchange
from tests.server.fuzz.operations import operations
from tests.server.fuzz.rules import check
from tests.server.live import serving
from tests.support.gguf_files import write_llama

TEMPLATES = {
    "raises": "{{ raise_exception('no chats') }}",
    "refuses a system": "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}",
    "divides by zero": "{{ 1 / 0 }}",
    "asks for what is not there": "{{ nowhere.at.all }}",
    "is not a template": "{% for",
    "makes too much": "{% for m in messages %}{{ 'x' * 1000000000 }}{% endfor %}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "reaches for Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "is empty": "",
}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
ASKED = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/messages": {"messages": MESSAGES[1:], "system": "Be brief.", "max_tokens": 2},
    "/v1/responses": {"input": MESSAGES},
    "/api/chat": {"messages": MESSAGES, "stream": False},
    "/api/extra/tokencount": {"messages": MESSAGES},
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates(tmp_path: Path, name: str) -> None:
    model = write_llama(tmp_path / "model.gguf", chat_template=TEMPLATES[name])
    settings = Settings(model=model, contextsize=256, threads=1, genlimit=2)
    worker = EngineWorker.start(settings.engine_config())
    try:
        with serving(worker, settings) as server:
            for operation in operations("POST"):
                if operation.path in ASKED:
                    body = json.dumps(ASKED[operation.path]).encode()
                    heard = exchange(server.port, "POST", operation.path, body)
                    check(operation, heard)
                    counting = operation.path == "/api/extra/tokencount"
                    assert heard.status in ({200, 400} if counting else {200}), (operation, heard.body)
            server.wait_until_idle()
    finally:
        worker.close()
