"""Runs the web application on a socket until told to stop."""

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from engine.worker import EngineWorker
from server.app import create_app
from server.client import EngineClient
from server.service import GenerationService
from server.settings import Settings

GRACE_SECONDS = 5
"""How long open connections may take to end after their generations were aborted."""


class _Server(uvicorn.Server):
    """Tells clients the end of their generations instead of waiting for them."""

    def __init__(self, config: uvicorn.Config, service: GenerationService, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.abort_all()
        super().handle_exit(sig, frame)


def run(worker: EngineWorker, settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve the engine on a bound socket; `ready` is called once clients can connect."""
    certificate, key = (None, None) if settings.ssl is None else settings.ssl
    service = GenerationService(EngineClient(worker), settings.capacity, settings.genlimit)
    config = uvicorn.Config(
        create_app(service, settings),
        log_config=None,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    _Server(config, service, ready).run(sockets=[listener])
