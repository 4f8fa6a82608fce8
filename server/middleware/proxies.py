"""Who a request comes from, when reverse proxies stand between."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.networks import Networks, parse_address


class TrustedProxies:
    """Pure ASGI, outside everything that asks for the client's address or the scheme.

    `X-Forwarded-For` and `X-Forwarded-Proto` count only where the connection comes from one of `proxies`.
    Each proxy appends whom it heard: of the list, the last address that is no proxy is the client's. What
    stands before it, the client may have written.
    """

    def __init__(self, app: ASGIApp, proxies: Networks) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] == "http" and scope["client"] is not None and self._trusts(scope["client"][0]):
            headers = Headers(scope=scope)
            # In place, so that uvicorn's log names the client as well.
            for named in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
                address = parse_address(named)
                if address is None:
                    break
                scope["client"] = (str(address), 0)
                if address not in self._proxies:
                    break
            scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
        await self._app(scope, receive, send)

    def _trusts(self, peer: str) -> bool:
        address = parse_address(peer)
        return address is not None and address in self._proxies
