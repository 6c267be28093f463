"""Bodies that are JSON: small, and in memory as a whole before they are read."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

from contracts import problems
from gateway.web.bodies import refuse_compressed
from gateway.web.pace import paced
from gateway.web.problems import ProblemError

MAX_BODY_BYTES = 64 * 1024
REFUSALS = (problems.UPLOAD_TOO_SLOW, problems.BODY_TOO_LARGE, problems.ENCODING_UNSUPPORTED)
"""What a body may be refused with before it is read."""


class SmallBodyRoute(APIRoute):
    """Reads MAX_BODY_BYTES at most, at a pace; FastAPI's own `max_body_size` would not answer with a problem body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request once its body was read."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            refuse_compressed(request)
            return await handle(Request(request.scope, _again(await _body(request), request)))

        return bounded


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in paced(request.stream()):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ProblemError(problems.BODY_TOO_LARGE, close=True)
    return bytes(body)


def _again(body: bytes, request: Request) -> Callable[[], Coroutine[Any, Any, Message]]:
    """Return a `receive` that gives the body that was read already, and then what the request still brings."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await request.receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
