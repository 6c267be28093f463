"""Who holds what a request takes: whoever it says that it is, or the address that it comes from."""

from starlette.requests import Request

from chassis.identity.caller import Caller


def client_of(request: Request, caller: Caller) -> str:
    """Return by what the client of a request is told from others: its owner's pseudonym, or else its address."""
    return caller.owner or client_address(request)


def client_address(request: Request) -> str:
    """Return the address that a request comes from: what the edge added last to X-Forwarded-For, or the connection's.

    RFC 7239, section 7.4: whatever stands before the last one is the client's own word.
    """
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    last = forwarded.rpartition(",")[2].strip()
    return last or (request.client.host if request.client else "")
