"""The parser of requests, with bounds on what is cheap to send and dear to parse."""

import re

import h11

from server.http.limits import CHUNK_BYTES, CHUNKS, HEAD_BYTES, HEADERS

_HEAD_END = re.compile(rb"\n\r?\n")


class BoundedParser(h11.Connection):
    """The server's side of a connection. Raises `h11.RemoteProtocolError` for what is over a bound.

    h11 bounds a head only while it is incomplete, so that a large one passes that comes in one piece, and
    does not count chunks.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES)
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What has come."""
        if self.their_state is h11.IDLE:
            waiting = self.trailing_data[0]
            if len(waiting) > HEAD_BYTES and _HEAD_END.search(waiting, 0, HEAD_BYTES) is None:
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        event = super().next_event()
        match event:
            case h11.Request():
                if len(list(event.headers)) > HEADERS:
                    raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
                self._chunks = self._bytes = 0
            case h11.Data():
                self._chunks += event.chunk_start
                self._bytes += len(event.data)
                if self._chunks > CHUNKS + self._bytes // CHUNK_BYTES:
                    raise h11.RemoteProtocolError("too many small chunks")
        return event
