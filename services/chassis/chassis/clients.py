"""The addresses of clients: whom a request comes from behind the proxies that are trusted."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.identity.caller import Caller
from chassis.settings import listed

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

IPV6_PREFIX = 64
"""One IPv6 client is a whole network of this length: hosts take new addresses in it at will (RFC 8981)."""
LOOPBACK = "127.0.0.1"
REMEMBERED = 4096
"""How many addresses are kept as they were read."""


class Proxies:
    """The proxies whose word on addresses counts.

    Proxies append whom they were called by to X-Forwarded-For, or to Forwarded (RFC 7239), so both are read from the
    right: a trusted proxy's word leads to the one before, and the first address that is no trusted proxy's is the
    client's. What stands before that is the client's own word. X-Forwarded-For wins where there is one. A proxy that
    does not know the address (`unknown`, `_hidden`) counts as the client itself.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._read = lru_cache(REMEMBERED)(self._parsed)

    def trust(self, address: str) -> bool:
        """Tell whether the address is that of a trusted proxy."""
        return self._read(address)[1]

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of the client whose request comes from `peer` with these headers."""
        client, is_trusted = self._read(peer)
        if is_trusted:
            for told in _told(headers):
                address, is_trusted = self._read(told)
                client = address or client
                if not is_trusted:
                    break
        return client or peer

    def _parsed(self, text: str) -> tuple[str, bool]:
        """Return the address as it is usually written, "" when it is none, and whether it is a trusted proxy's."""
        address = _address(text)
        if address is None:
            return "", False
        return str(address), any(address in network for network in self._networks)


class ProxySettings(BaseSettings):
    """Which proxies a service believes."""

    trusted_proxies: str = Field(
        default="127.0.0.0/8,::1/128", description="Comma separated networks, whose word on clients' addresses counts"
    )

    @property
    def proxies(self) -> Proxies:
        """The proxies of these networks."""
        return Proxies(ip_network(network) for network in listed(self.trusted_proxies))

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            for network in listed(value):
                ip_network(network)
        except ValueError:
            raise ValueError("networks are written as 10.1.0.0/16 or fd00::/8, single addresses without /") from None
        return value


class Clients:
    """ASGI middleware that puts the client's address in place of the proxy's into `scope["client"]`."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0)."""
        if scope["type"] == "http":
            peer = scope.get("client")
            # Without an address, the peer is a proxy on this host, at a Unix socket.
            found = self._proxies.client(peer[0] if peer else LOOPBACK, scope["headers"])
            scope["client"] = (found, 0 if peer is None or found != peer[0] else peer[1])
        await self._app(scope, receive, send)


@lru_cache(REMEMBERED)
def network_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, the /64 of an IPv6 one, any other text as it is."""
    parsed = _address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed or address)


def counted_as(scope: Scope, caller: Caller, proxies: Proxies) -> str | None:
    """Return by what name a caller is counted: its owner's pseudonym, or else its address.

    None for the inner network, which is not limited: whoever says nothing of itself and calls from a proxy's address.
    """
    if caller.owner is not None:
        return caller.owner
    client = scope.get("client")
    address = client[0] if client else LOOPBACK
    return None if proxies.trust(address) else network_of(address)


def _told(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """Yield what proxies told of whom they were called by, the nearest one's word first."""
    for field, read in ((b"x-forwarded-for", str), (b"forwarded", _for)):
        values = [value.decode("latin-1") for name, value in headers if name == field]
        if values:
            rest, comma = ",".join(values), ","
            while comma:
                rest, comma, told = rest.rpartition(",")
                yield read(told).strip()
            return


def _for(element: str) -> str:
    """Return who was called for, of one element of Forwarded (RFC 7239, section 4); "" when it does not say."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _address(text: str) -> Address | None:
    """Return the address, without a port; IPv4 within IPv6 (RFC 4291, section 2.5.5.2) is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
