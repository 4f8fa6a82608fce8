"""`nkat serve`: load a model and serve it until told to stop."""

import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import uvicorn

from engine.errors import ConfigError
from server.app import create_app
from server.client import EngineClient
from server.console import Console
from server.logs import set_up_logging
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


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises `NkatError` for what is wrong before that.

    The port is taken before the model is loaded, so that a port in use costs no waiting; nobody can
    connect before the model is there.
    """
    config = settings.engine_config()
    console = Console(quiet=settings.quiet)
    set_up_logging(quiet=settings.quiet, prompts=settings.debugmode)
    signal.signal(signal.SIGTERM, _terminated)
    with bound_socket(settings.host, settings.port) as listener:
        console.loading(config.model)
        from engine.worker import EngineWorker  # imports torch

        worker = EngineWorker.start(config)
        try:
            service = GenerationService(EngineClient(worker), settings.capacity)
            host, port = listener.getsockname()[:2]
            server = _Server(
                uvicorn.Config(
                    create_app(service, settings),
                    log_config=None,
                    server_header=False,
                    ws="none",
                    lifespan="off",
                    timeout_graceful_shutdown=GRACE_SECONDS,
                ),
                service,
                ready=lambda: console.ready(worker.info, settings, host, port),
            )
            server.run(sockets=[listener])
        finally:
            worker.close()
            logging.getLogger(__name__).info("stopped")


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that holds the address without listening yet. Raises `ConfigError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(f"unknown host {host!r}; --host takes an address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; choose another --port") from None
    return listener


def _terminated(sig: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + sig)
