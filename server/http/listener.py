"""The listening socket: takes connections in, as many as there is room for.

asyncio's own server knows no bounds, counts no TLS handshakes, and logs every try to accept a connection for
which the system has no descriptor.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from server.http.limits import (
    ACCEPT_RETRY_SECONDS,
    ACCEPTED,
    BACKLOG,
    REFUSAL_SECONDS,
    REFUSALS,
    ConnectionLimits,
)
from server.http.places import Place, Places
from server.logs import RareLog
from server.wire.replies import error_body, to_json

_logger = logging.getLogger(__name__)


class Listener:
    """Accepts connections on a bound socket, from `start` to `close`."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[Place], asyncio.Protocol],
        places: Places,
        tls: ssl.SSLContext | None,
        limits: ConnectionLimits,
    ) -> None:
        self._socket = listener
        self._protocol = protocol
        self._places = places
        self._tls = tls
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._refusing: set[asyncio.Task[None]] = set()
        self._log = RareLog(_logger)

    def start(self) -> None:
        """Listen."""
        self._socket.setblocking(False)
        self._socket.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Accept no more. Open connections stay."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._socket)
        for task in (*self._opening, *self._refusing):
            task.cancel()

    async def wait_closed(self) -> None:
        """Until what `close` ended has ended."""
        await asyncio.gather(*self._opening, *self._refusing, return_exceptions=True)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for number in range(ACCEPTED):
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # After others, there may have been none to accept: Linux looks for a descriptor first.
                if number == 0:
                    self._pause(error)
                return
            connection.setblocking(False)
            place = self._places.take(address[0])
            if place is None:
                self._refuse(connection)
            else:
                self._open(connection, place)

    def _pause(self, error: OSError) -> None:
        """Wait a little: the socket stays readable, and the next try would fail like this one."""
        self._log.warning("cannot accept connections: %s", error.strerror or error)
        self._places.evict_oldest()
        self._loop.remove_reader(self._socket)
        self._retry = self._loop.call_later(ACCEPT_RETRY_SECONDS, self._resume)

    def _open(self, connection: socket.socket, place: Place) -> None:
        task = self._loop.create_task(self._connect(connection, place))
        place.evict = task.cancel
        self._opening.add(task)

        def opened(task: asyncio.Task[None]) -> None:
            self._opening.discard(task)
            if task.cancelled() or task.exception() is not None:
                # Also where the task never ran. A transport that there was has let go of the socket.
                connection.close()
                place.leave()

        task.add_done_callback(opened)

    async def _connect(self, connection: socket.socket, place: Place) -> None:
        handshake = None if self._tls is None else self._limits.handshake
        await self._loop.connect_accepted_socket(
            lambda: self._protocol(place),
            connection,
            ssl=self._tls,
            ssl_handshake_timeout=handshake,
            ssl_shutdown_timeout=handshake,
        )

    def _refuse(self, connection: socket.socket) -> None:
        self._log.warning("a connection was refused: %d are open, all of them in use", len(self._places))
        # Before a handshake there is no way of saying anything.
        if self._tls is not None or len(self._refusing) >= REFUSALS:
            connection.close()
            return
        task = self._loop.create_task(self._say_busy(connection))
        self._refusing.add(task)

        def refused(task: asyncio.Task[None]) -> None:
            self._refusing.discard(task)
            connection.close()

        task.add_done_callback(refused)

    async def _say_busy(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(REFUSAL_SECONDS):
                await self._loop.sock_sendall(connection, _BUSY)
                connection.shutdown(socket.SHUT_WR)
                # A socket that is closed with something unread loses what it said last.
                while await self._loop.sock_recv(connection, 1 << 16):
                    pass
        except (OSError, TimeoutError):
            pass


def _busy_answer() -> bytes:
    body = to_json(error_body(503, "Too many connections; please try again later.", "service_unavailable"))
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Access-Control-Allow-Origin: *",
        "Retry-After: 1",
        "Connection: close",
    )
    return "\r\n".join((*head, "", body)).encode("ascii")


_BUSY = _busy_answer()
