"""The name under which a client's slots are counted: its owner's pseudonym, or else its address."""

from starlette.requests import Request

from chassis.clients import network_of
from chassis.identity.caller import Caller


def client_of(request: Request, caller: Caller) -> str:
    """Return the name of the client that a request comes from."""
    return caller.owner or client_address(request)


def client_address(request: Request) -> str:
    """Return the address of the client, of IPv6 its first 64 bits: the rest changes at will."""
    return network_of(request.client.host) if request.client else ""  # chassis.clients has looked behind the proxies
