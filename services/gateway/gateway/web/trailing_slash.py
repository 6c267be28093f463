"""Addresses with a slash at their end."""

from starlette.types import ASGIApp, Receive, Scope, Send


class WithoutTrailingSlash:
    """Takes /path/ for /path; a redirect would make the client send its upload twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0)."""
        if scope["type"] == "http" and scope["path"] != "/":
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)
