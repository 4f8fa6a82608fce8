"""Internet addresses as they are written, and lists of networks."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_address(text: str) -> Address | None:
    """The address that `text` is, with or without a port, brackets or a zone; None where it is none.

    A version-4 address in the form of version 6, as sockets for both report it, counts as version 4.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if mapped is None else mapped


def parse_network(text: str) -> Network:
    """An address, or a network as in 10.0.0.0/8. Raises `ValueError`."""
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no address and no network") from None


def household(address: str) -> str | None:
    """Who is at an address, for shares: a household has 2^64 addresses of version 6. None for this machine.

    Clients of this machine have no share: they may be all the clients of a proxy.
    """
    found = parse_address(address)
    if found is None or found.is_loopback:
        return None
    return str(found) if found.version == 4 else str(ip_network((found, 64), strict=False))


class Networks:
    """Several networks."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(parse_network(network) for network in networks)

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)
