"""File descriptors of the process: how many there may be, and how many of them connections may take."""

import contextlib
import resource

from server.http.limits import CONNECTIONS, DESCRIPTORS, SPARE_DESCRIPTORS


def raise_descriptor_limit() -> int:
    """Let the process open as many files as the system allows, within reason. How many that is now.

    A limit that is higher already stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft == resource.RLIM_INFINITY:
        return DESCRIPTORS
    if soft < wanted:
        # Some systems have a lower bound of their own; the limit then stays as it was.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return soft


def most_connections(descriptors: int) -> int:
    """Connections that leave enough of the process's descriptors to files."""
    return max(1, min(CONNECTIONS, descriptors - min(SPARE_DESCRIPTORS, descriptors // 2)))
