"""Requests that change the server for everybody, and so must not come from a stranger's web page.

A browser lets any page send text to any server that it can reach, a server of this machine among them. It
says which page that was in the header `Origin`; other programs send none.
"""

from urllib.parse import urlsplit

from fastapi import Request

from server.wire.replies import HttpError

PUBLIC_LITE = "https://lite.koboldai.net"
"""Where KoboldAI Lite is a page of its own. It may do with a server what the server's own pages may."""

_PORTS = {"http": 80, "https": 443}


def strange_page(request: Request) -> str:
    """The origin of a page that is neither the server's nor Lite's; empty for these and other programs."""
    origin = request.headers.get("origin", "")
    known = not origin or origin == PUBLIC_LITE or _is_here(origin, request.headers.get("host", ""))
    return "" if known else origin


def require_own_page(request: Request) -> None:
    """Dependency of routes that change what others see. Raises `HttpError`."""
    origin = request.headers.get("origin")
    if origin is not None and not _is_here(origin, request.headers.get("host", "")):
        raise HttpError(403, "This can be changed by the server's own pages alone.", "forbidden")


def require_json(request: Request) -> None:
    """Dependency of routes whose body no form of a web page may be. Raises `HttpError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, "Send the body as JSON: Content-Type: application/json", "bad_input")


def _is_here(origin: str, host: str) -> bool:
    """Whether a page's origin is the name and port that the request was sent to."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"//{host}")
        default = _PORTS.get(page.scheme)
        # A proxy may speak TLS for this server, which then knows no scheme but its own.
        return default is not None and (page.hostname, page.port or default) == (
            here.hostname,
            here.port or default,
        )
    except ValueError:
        return False
