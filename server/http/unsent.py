"""What a connection's peer has not taken yet."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios


def unsent(transport: asyncio.Transport) -> tuple[int, int]:
    """Bytes that wait in the transport, and bytes in the kernel that the peer has not acknowledged.

    While nobody writes, they change exactly when the peer takes something. The first alone would not do: the
    kernel takes more only when a third of its megabytes is free, which a slow peer needs minutes for.
    """
    connection = transport.get_extra_info("socket")
    try:
        queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # a system without this question
        return transport.get_write_buffer_size(), 0
    return transport.get_write_buffer_size(), int.from_bytes(queued, "little")


def drop(transport: asyncio.Transport) -> None:
    """Close a connection at once, and free what the kernel holds for its peer as well."""
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
