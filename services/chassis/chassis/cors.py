"""Cross-origin requests: which pages of other origins may call a service, and with their cookies (Fetch, CORS)."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

ANY_ORIGIN = "*"
LIMITS = ("RateLimit", "RateLimit-Policy")
"""The fields that tell a page how much it may still ask for."""


def allowing(app: ASGIApp, origins: Sequence[str], *, methods: Sequence[str], exposed: Sequence[str]) -> ASGIApp:
    """Return the application for pages of these origins. Listed ones may send credentials; any origin (`*`) may not.

    The services know no cookies, but a page whose client always sends them (`withCredentials`) gets no answer without.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=methods,
        allow_headers=["*"],
        allow_credentials=ANY_ORIGIN not in origins,
        expose_headers=exposed,
        max_age=600,
    )
