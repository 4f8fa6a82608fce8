"""Under which names the server answers.

A page of a name that a stranger owns can give that name the address of this machine, and then counts for the
browser as a page of this server (DNS rebinding). The name in the `Host` header tells such requests apart.
"""

import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.networks import parse_address
from server.settings import Settings
from server.wire.replies import error_reply

PRIVATE_DOMAINS = (".localhost", ".local", ".internal", ".home.arpa", ".lan", ".localdomain")
"""Domains in which no stranger can have a name: docker's names of the host are among them."""

NAME_SHOWN = 64
"""Characters of a name that a refusal repeats."""


class HostRule:
    """Which names of the server's own are taken; addresses and `localhost` always are.

    `private`: also names that no stranger can have, those without a dot and in private domains.
    """

    def __init__(self, names: Iterable[str], *, private: bool) -> None:
        self._names = {name.lower().rstrip(".") for name in names}
        self._private = private

    def admits(self, host: str) -> bool:
        """Whether a request with this `Host` header is meant for this server."""
        if parse_address(host) is not None:
            return True
        name = host_name(host)
        if name in self._names or name == "localhost":
            return True
        return self._private and ("." not in name or name.endswith(PRIVATE_DOMAINS))


def host_name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    return host.strip().partition(":")[0].lower().rstrip(".")


def host_rule(settings: Settings) -> HostRule | None:
    """The rule for a server with these settings; None where every name is taken.

    Where nothing is said, names are looked at on a server without a key that listens on this machine alone:
    its user trusts that others cannot get at it.
    """
    if settings.allowed_hosts is not None:
        names = settings.allowed_hosts
        return None if "*" in names else HostRule((*names, settings.host), private=False)
    if settings.protected or not settings.is_local:
        return None
    return HostRule((settings.host, socket.gethostname()), private=True)


class AllowedHosts:
    """Pure ASGI. Refuses requests that were sent to another name. A request without a name passes."""

    def __init__(self, app: ASGIApp, rule: HostRule | None) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] == "http" and self._rule is not None:
            host = Headers(scope=scope).get("host", "localhost")
            if not self._rule.admits(host):
                name = host_name(host)[:NAME_SHOWN]
                message = f"This server is not known as {name!r}: start it with --allowed-hosts {name}"
                await error_reply(403, message, "forbidden")(scope, receive, send)
                return
        await self._app(scope, receive, send)
