"""Who a request comes from."""

from fastapi import Request

from server.service import Origin
from server.wire.own_pages import strange_page


def origin_of(request: Request, genkey: str = "") -> Origin:
    """The client's address and web page, as far as the server sees them, and the name it gave the request."""
    address = request.client.host if request.client is not None else ""
    return Origin(
        address,
        genkey,
        has_key=getattr(request.state, "has_key", False),
        page=strange_page(request),
    )
