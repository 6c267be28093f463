"""Calls that pages of other sites make: those that change something are refused unless CORS_ORIGINS lists the page.

A browser asks first (CORS) for most of them, but sends a form without asking, with all that lets its user in.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.cors import ANY_ORIGIN
from chassis.methods import SAFE_METHODS
from contracts import problems
from gateway.web.problems import problem_response


class OwnOrigins:
    """Refuses what a page of another site would change, but for the paths in `exempt`, which let in by other means."""

    def __init__(self, app: ASGIApp, origins: Sequence[str], exempt: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._exempt = frozenset(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0)."""
        app = self._app
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and scope["path"] not in self._exempt:
            request = Request(scope)
            if not may_change(request.headers, self._origins):
                # The body has not been read, so the connection must end.
                app = problem_response(request, problems.ORIGIN_NOT_ALLOWED, close=True)
        await app(scope, receive, send)


def may_change(headers: Headers, allowed: frozenset[str]) -> bool:
    """Tell whether the page that sent these headers is one of our own, or is listed. Programs name no page at all.

    `Sec-Fetch-Site` (W3C Fetch Metadata, section 2.4) is the browser's own word, which no page can change. Browsers
    without it send `Origin` with whatever is no GET or HEAD (WHATWG Fetch, "append a request Origin header"): its host
    is compared with that of the request. Not the scheme, of which a proxy that ends TLS may not tell.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none").lower()
    if ANY_ORIGIN in allowed or origin in allowed:
        return True
    if site != "none":
        return site == "same-origin"
    return origin is None or _host_of(origin) == headers.get("host", "").lower()


def _host_of(origin: str) -> str | None:
    """Return the host and port of an origin; None when it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
