"""Who sends a request, as far as its connection tells."""

from starlette.requests import Request


def client_address(request: Request) -> str:
    """Return the address that a request comes from: what the edge added last to X-Forwarded-For, or the connection's.

    RFC 7239, section 7.4: whatever stands before the last one is the client's own word.
    """
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    last = forwarded.rpartition(",")[2].strip()
    return last or (request.client.host if request.client else "")
