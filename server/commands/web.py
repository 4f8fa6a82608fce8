"""Runs the web application on a socket until told to stop."""

import socket
from collections.abc import Callable

from starlette.types import ASGIApp

from engine.worker import EngineWorker
from server.app import create_app
from server.client import EngineClient
from server.http.descriptors import most_connections, raise_descriptor_limit
from server.http.limits import ConnectionLimits
from server.http.server import WebServer
from server.networks import Networks
from server.service import GenerationService
from server.settings import Settings

GRACE_SECONDS = 5
"""How long open connections may take to end after their generations were aborted."""


def run(worker: EngineWorker, settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve the engine on a bound socket; `ready` is called once clients can connect."""
    service = GenerationService(EngineClient(worker), settings.capacity, settings.genlimit)
    limits = ConnectionLimits(connections=most_connections(raise_descriptor_limit()))
    server = web_server(service, settings, limits, grace=GRACE_SECONDS, ready=ready)
    server.run(sockets=[listener])


def web_server(
    service: GenerationService,
    settings: Settings,
    limits: ConnectionLimits,
    *,
    grace: int,
    ready: Callable[[], None] = lambda: None,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> WebServer:
    """The server of a service. When a signal stops it, generations end first: nobody waits for them.

    `around`: what stands between the connections and the application.
    """
    return WebServer(
        around(create_app(service, settings)),
        grace=grace,
        limits=limits,
        certificate=settings.ssl,
        proxies=Networks(settings.trusted_proxies or ()),
        started_up=ready,
        stopping=service.stop,
    )
