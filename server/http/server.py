"""The web server: uvicorn on one bound socket, with bounds on connections."""

import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from server.http.limits import ConnectionLimits
from server.http.listener import Listener
from server.http.places import Place, Places
from server.http.protocol import BoundedProtocol
from server.networks import Networks


class WebServer(uvicorn.Server):
    """Serves `app` on the socket that `run` gets.

    `grace`: seconds that open connections may take to end. `proxies`: addresses whose connections are those
    of many clients. `started_up` is called once clients can connect, `stopping` when a signal ends the
    server, before connections are asked to close.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace: int,
        limits: ConnectionLimits,
        certificate: tuple[Path, Path] | None = None,
        proxies: Networks | None = None,
        started_up: Callable[[], None] = lambda: None,
        stopping: Callable[[], None] = lambda: None,
    ) -> None:
        certfile, keyfile = (None, None) if certificate is None else certificate
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            server_header=False,
            # Who a request comes from is `server.middleware.proxies`' to say: uvicorn believes any local
            # client, and whatever the environment names.
            proxy_headers=False,
            timeout_graceful_shutdown=grace,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
        )
        super().__init__(config)
        self._limits = limits
        self._proxies = Networks(()) if proxies is None else proxies
        self._started_up = started_up
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on `sockets`."""
        await super().startup(sockets=[])
        limits = self._limits
        places = Places(limits.connections, limits.by_address, self._proxies, limits.young)
        listeners = [
            Listener(listener, self._protocol, places, self.config.ssl, limits) for listener in sockets or ()
        ]
        for listener in listeners:
            listener.start()
        self.servers = cast(list[Any], listeners)
        self._started_up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        self._stopping()
        super().handle_exit(sig, frame)

    def _protocol(self, place: Place) -> BoundedProtocol:
        return BoundedProtocol(
            self.config, self.server_state, self.lifespan.state, limits=self._limits, place=place
        )
