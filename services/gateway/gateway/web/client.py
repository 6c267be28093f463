"""Who holds what a request takes: whoever it says that it is, or the address that it comes from."""

from starlette.requests import Request

from chassis.clients import network_of
from chassis.identity.caller import Caller


def client_of(request: Request, caller: Caller) -> str:
    """Return by what the client of a request is told from others: its owner's pseudonym, or else its address."""
    return caller.owner or client_address(request)


def client_address(request: Request) -> str:
    """Return what of the client's address tells it from others: of IPv6 the first 64 bits."""
    return network_of(request.client.host) if request.client else ""  # chassis.clients has looked behind the proxies
