"""What a connection may cost. `docs/limits.md` lists these bounds; they are no settings."""

from dataclasses import dataclass

IDLE_SECONDS = 75.0
"""Without a byte between two requests, or before the first one. Longer than the minute for which proxies keep
their connections: a request must not meet a server that has just closed."""

HEAD_SECONDS = 20.0
"""From the first byte of a request to the end of its head, which is a packet or two."""

BODY_SECONDS = 30.0
"""In each such span a body that is not complete must grow by `BODY_BYTES`."""

BODY_BYTES = 4 << 10
"""About 140 bytes a second: a slow line passes, silence does not."""

WRITE_SECONDS = 60.0
"""Without the peer taking a byte while there are some for it."""

HANDSHAKE_SECONDS = 10.0
"""For TLS: two round trips and some arithmetic."""

HEAD_BYTES = 16 << 10
"""Of a request's head; browsers and proxies send one or two kilobytes."""

HEADERS = 128
"""Headers of a request. Each is looked at by several parts of the server."""

CHUNKS = 1024
"""Chunks of a body that may be of any size; further ones are `CHUNK_BYTES` long on average."""

CHUNK_BYTES = 64
"""A chunk costs as much time to parse as some ten kilobytes of a body without chunks."""

CONNECTIONS = 2048
"""Open connections. Far more than generations that may be open, few enough to be cheap when all are idle."""

ADDRESS_SHARE = 8
"""Of all connections, one address may hold an eighth."""

YOUNG_SECONDS = 0.1
"""A connection that has been idle for less is not closed for another: what it asks may be on its way."""

DESCRIPTORS = 65_536
"""File descriptors that the process asks for at most."""

SPARE_DESCRIPTORS = 256
"""Descriptors that connections leave to files, at most half of all."""

ACCEPTED = 32
"""Connections accepted in a row before others have their say; fewer than the spare descriptors."""

ACCEPT_RETRY_SECONDS = 0.2
"""Until the next try when the system gave no descriptor: connections may have been closed by then."""

REFUSALS = 64
"""Connections beyond all bounds that are answered at the same time; further ones are closed at once."""

REFUSAL_SECONDS = 1.0
"""For a client to read that there is no room."""

BACKLOG = 2048
"""Connections that wait in the kernel to be accepted."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds of one server. Tests have smaller ones."""

    idle: float = IDLE_SECONDS
    head: float = HEAD_SECONDS
    body: float = BODY_SECONDS
    body_bytes: int = BODY_BYTES
    write: float = WRITE_SECONDS
    handshake: float = HANDSHAKE_SECONDS
    connections: int = CONNECTIONS
    young: float = YOUNG_SECONDS

    @property
    def by_address(self) -> int:
        """Connections that one address may hold."""
        return max(1, self.connections // ADDRESS_SHARE)
