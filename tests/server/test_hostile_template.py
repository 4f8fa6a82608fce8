"""A model file whose chat template is a trap: chats that spring it get an error, everybody else an answer."""

import asyncio
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BusyError, TemplateCostError
from engine.templates.limits import LIMITS
from engine.types import ChatPrompt
from server.client import EngineClient
from server.service import GenerationService
from server.settings import Settings
from tests.engine.templates.rendering import ENDLESS, PATIENCE, ROOT, children, gone, using
from tests.engine.templates.rendering import wait_for as wait_patiently
from tests.server.live import LiveServer, read_answer, serving_alone
from tests.support.gguf_files import write_llama

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    "{% if messages[-1].content == 'spring' %}" + ENDLESS + "{% endif %}"
)
"""It seems harmless to whoever loads the model."""
CHAT = "/v1/chat/completions"
SPRING: dict[str, Any] = {"messages": [{"role": "user", "content": "spring"}], "max_tokens": 2}
STREAM = {"prompt": "hello", "max_length": 1500, "ban_eos_token": True}


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(
        tmp_path_factory.mktemp("trap") / "model.gguf", chat_template=TEMPLATE, context_length=2048
    )


@pytest.fixture(scope="module")
def trapped(trap: Path) -> Iterator[LiveServer]:
    settings = Settings(model=trap, contextsize=2048, threads=1, parallelrequests=8)
    with serving_alone(settings) as server:
        yield server


def post(server: LiveServer, path: str, body: object) -> socket.socket:
    return server.send("POST", path, json.dumps(body).encode())


def answered(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_a_stopped_chat_gets_an_error_and_others_go_on(trapped: LiveServer) -> None:
    with post(trapped, "/api/extra/generate/stream", STREAM) as stream, post(trapped, CHAT, SPRING) as chat:
        assert stream.recv(1) == b"H"
        pings = streamed = 0
        while not answered(chat):
            assert trapped.get("/ping").status == 200
            pings += 1
            if answered(stream):
                streamed += len(stream.recv(1 << 16))
        assert pings > 0
        assert streamed > 0
        answer = read_answer(chat)
    assert answer.status == 400
    said = answer.json["error"]["message"]
    assert said == "the model's chat template was stopped: it takes longer than 2 seconds of CPU time"
    harmless = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    assert trapped.post(CHAT, harmless).status == 200
    trapped.wait_until_idle()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", SPRING),
        ("/api/chat", SPRING | {"stream": False}),
        ("/api/extra/tokencount", SPRING),
    ],
)
def test_every_dialect_says_so(trapped: LiveServer, path: str, body: dict[str, object]) -> None:
    answer = trapped.post(path, body)
    assert answer.status == 400
    counted = path.endswith("tokencount")
    assert (b'{"value": -1}' if counted else b"was stopped: it takes longer than") in answer.body
    trapped.wait_until_idle()


def test_chats_that_render_do_not_delay_completions(trapped: LiveServer) -> None:
    service = GenerationService(EngineClient(trapped.worker), 8)
    prompt = ChatPrompt(tuple(SPRING["messages"]))

    async def count_beside_chats() -> None:
        chats = [asyncio.create_task(service.render_chat(prompt)) for _ in range(LIMITS.processes + 2)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert await service.count("hello", special=True)
        assert not any(chat.done() for chat in chats)
        for said in await asyncio.gather(*chats, return_exceptions=True):
            assert isinstance(said, TemplateCostError | BusyError)

    asyncio.run(count_beside_chats())


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_server_ends_while_a_template_renders(trap: Path, sent: signal.Signals, code: int) -> None:
    """SIGTERM does not wait for the template: its process is stopped, so that it would take half a minute."""
    command = [sys.executable, "-m", "server", "serve", "--model", str(trap), "--port", "0"]
    command += ["--skiplauncher", "--threads", "1", "--contextsize", "512"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Ready"):
                break
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", said)[0])
        [child] = children(process.pid)
        used = using(child)
        body = json.dumps(SPRING)
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            head = f"POST {CHAT} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
            wait_patiently(lambda: using(child) > used + 0.2)
            if sent is signal.SIGTERM:
                os.kill(child, signal.SIGSTOP)
            process.send_signal(sent)
            _, errors = process.communicate(timeout=PATIENCE / 2)
    assert process.returncode == code
    assert "Traceback" not in errors
    wait_patiently(lambda: gone(child))
