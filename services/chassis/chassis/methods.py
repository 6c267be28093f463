"""What every address answers besides its own methods: HEAD wherever GET is, OPTIONS, the whole Allow (RFC 9110, 9)."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Those that change nothing and have no body (RFC 9110, section 9.2.1); no address takes TRACE."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_METHOD_NOT_ALLOWED = 405


def answer_all_methods(app: FastAPI) -> None:
    """Have the application answer HEAD and OPTIONS for all of its routes; call this once they are all there.

    HEAD is answered as GET is, but for the body, except where a route takes HEAD itself. Neither shows in OpenAPI.
    """
    app.add_middleware(_AllMethods, routes=app.routes)


class _AllMethods:
    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "HEAD" and not self._takes(scope, "HEAD"):
            await self._app({**scope, "method": "GET"}, receive, _bodiless(self._telling(scope, send)))
        elif scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
        else:
            await self._app(scope, receive, self._telling(scope, send))

    def _takes(self, scope: Scope, method: str) -> bool:
        """Tell whether a route takes this method at the request's address."""
        # What is mounted takes every method here, and refuses some itself.
        routes = (route for route in self._routes if not isinstance(route, Mount))
        return any(route.matches({**scope, "method": method})[0] == Match.FULL for route in routes)

    def _allowed(self, scope: Scope) -> str:
        """Return the methods of the request's address, "" when there is nothing at it."""
        found = {method for method in _METHODS if self._takes(scope, method)}
        if "GET" in found:
            found.add("HEAD")
        return ", ".join([*(method for method in _METHODS if method in found), "OPTIONS"]) if found else ""

    def _telling(self, scope: Scope, send: Send) -> Send:
        """Return a `send` that makes a refusal's Allow whole: the router puts one route's methods there."""

        async def tell(message: Message) -> None:
            refused = message["type"] == "http.response.start" and message["status"] == _METHOD_NOT_ALLOWED
            if refused and (allowed := self._allowed(scope)):
                others = [(name, value) for name, value in message["headers"] if name.lower() != b"allow"]
                message = {**message, "headers": [*others, (b"allow", allowed.encode())]}
            await send(message)

        return tell


def _bodiless(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
