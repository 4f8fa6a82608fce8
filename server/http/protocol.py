"""HTTP/1.1 on one connection, with deadlines for whoever is at the other end."""

import asyncio
from enum import Enum, auto
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from server.http.limits import ConnectionLimits
from server.http.parser import BoundedParser
from server.http.places import Place
from server.http.unsent import drop, unsent

TAKEN = "nkat.taken"
"""Under which name the scope carries a coroutine function that returns when the client has the answer."""

_LATE_HEAD = "The head of the request came too slowly."
_LATE_BODY = "The body of the request came too slowly."


class _Reading(Enum):
    """What is expected of the peer, as far as it has a deadline here."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class BoundedProtocol(H11Protocol):
    """A connection that ends when its peer sends or takes nothing for too long.

    Idle time, before the first request and between two, is the base class's to watch.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        place: Place,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = BoundedParser()
        self.app = self._run
        self.timeout_keep_alive = limits.idle  # type: ignore[assignment] # any number of seconds will do
        self._limits = limits
        self._place = place
        self._reading = _Reading.NOTHING
        self._read_timer: asyncio.TimerHandle | None = None
        self._received = 0
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent = (0, 0)

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:
        """The application, with a word about the connection in its scope."""
        scope[TAKEN] = self.flow.drain
        await self.config.loaded_app(scope, receive, send)

    # From the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The peer may send."""
        super().connection_made(transport)
        # Whoever writes waits until all is with the kernel: while some is not, what is left changes only when
        # the peer takes something. TLS would pause for nothing at 0.
        transport.set_write_buffer_limits(high=1 if is_ssl(transport) else 0)
        self._place.evict = transport.abort
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._expect(_Reading.NOTHING)
        self._stop_write_timer()
        self._place.leave()

    def data_received(self, data: bytes) -> None:
        """The peer sent something."""
        if self.transport.is_closing():
            return
        self._received += len(data)
        super().data_received(data)
        self._look()

    def pause_writing(self) -> None:
        """The peer does not take what is written as fast as it comes."""
        super().pause_writing()
        self._unsent = unsent(self.transport)
        self._write_timer = self.loop.call_later(self._limits.write, self._check_writing)
        self._look()

    def resume_writing(self) -> None:
        """The peer has taken everything."""
        super().resume_writing()
        self._stop_write_timer()
        self._look()

    # From the request

    def on_response_complete(self) -> None:
        """The answer is written, as far as the kernel took it."""
        super().on_response_complete()
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            # The rest of the body is of no use to anyone: there is no more to say here.
            self.transport.close()
        self._look()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request of HTTP. Also used by the base class."""
        self._end(400, msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Not a word: a server may go on in HTTP, and clients could fill the log with this."""

    # Deadlines

    def _look(self) -> None:
        """Find out what is expected of the peer, and see to its deadline."""
        answering = self.cycle is not None and not self.cycle.response_complete
        self._place.set_busy(answering or self.flow.write_paused)
        if self.transport.is_closing():
            self._expect(_Reading.NOTHING)
        elif self.conn.their_state is h11.SEND_BODY:
            self._expect(_Reading.BODY)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect(_Reading.HEAD)
        else:
            self._expect(_Reading.NOTHING)

    def _expect(self, reading: _Reading) -> None:
        if reading is self._reading:
            return
        self._reading = reading
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        if reading is _Reading.HEAD:
            self._read_timer = self.loop.call_later(self._limits.head, self._end, 408, _LATE_HEAD)
        elif reading is _Reading.BODY:
            self._wait_for_body()

    def _wait_for_body(self) -> None:
        self._received = 0
        self._read_timer = self.loop.call_later(self._limits.body, self._check_body)

    def _check_body(self) -> None:
        # Not the peer's fault: the server does not read, or has not said yet that it will.
        ours = self.flow.read_paused or self.conn.they_are_waiting_for_100_continue
        if ours or self._received >= self._limits.body_bytes:
            self._wait_for_body()
        else:
            self._end(408, _LATE_BODY)

    def _check_writing(self) -> None:
        left = unsent(self.transport)
        if left == self._unsent:
            drop(self.transport)
            return
        self._unsent = left
        self._write_timer = self.loop.call_later(self._limits.write, self._check_writing)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _end(self, status: int, message: str) -> None:
        """Close the connection, with a last word unless an answer has begun."""
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = message.encode("ascii")
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
                (b"access-control-allow-origin", b"*"),
                (b"connection", b"close"),
            ]
            head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()
        else:
            self.transport.abort()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._look()
