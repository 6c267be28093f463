"""How slowly a client may send or take the bytes of one file: each such request holds one of few slots."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.plain_http import TAKE_OVER, TakeOver
from contracts import problems
from gateway.web.problems import ProblemError

log = structlog.get_logger()

IDLE_SECONDS = 30.0
"""How long a client may send or take nothing; and how far it may be behind the least speed."""
FIRST_BYTES = 1024 * 1024
"""As much as a recording usually has: it may come from where there is hardly a network."""
FIRST_BYTES_PER_SECOND = 4 * 1024
"""The least average speed of the first bytes."""
BYTES_PER_SECOND = 32 * 1024
"""The least average speed of all bytes after these."""
LONGEST_SECONDS = 2 * 3600.0
"""How long one file may take, at whatever speed."""

Answer = TypeVar("Answer")


class TooSlowError(Exception):
    """A client sends or takes a file too slowly."""


class Pace:
    """How a client keeps up with the least speed, for one file.

    Only the time counts in which the client is waited for: it is not to blame for a slow S3.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._bytes = 0
        self._waited = 0.0

    async def waiting(self, step: Awaitable[Answer]) -> Answer:
        """Wait for the client; TooSlowError when it does nothing for IDLE_SECONDS."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                return await step
        except TimeoutError:
            raise TooSlowError from None
        finally:
            self._waited += time.monotonic() - began

    def moved(self, count: int) -> None:
        """Count bytes that have come or gone; TooSlowError when they took too long."""
        self._bytes += count
        if self._waited > _allowed_seconds(self._bytes) or time.monotonic() - self._began > LONGEST_SECONDS:
            raise TooSlowError


async def paced(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what arrives; ProblemError when nothing does for too long, or all of it too slowly."""
    pace = Pace()
    try:
        while chunk := await pace.waiting(_next_chunk(body)):
            pace.moved(len(chunk))
            yield chunk
    except TooSlowError:
        raise ProblemError(problems.UPLOAD_TOO_SLOW, close=True) from None


async def sent_at_a_pace(response: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response. Who takes it too slowly is cut off; a player that was paused asks for the rest in time."""
    pace = Pace()

    async def send_paced(message: Message) -> None:
        await pace.waiting(send(message))
        pace.moved(len(message.get("body", b"")))

    try:
        await response(scope, receive, send_paced)
    except TooSlowError:
        log.info("slow reader cut off", path=scope["path"])
        _cut(scope)


def _cut(scope: Scope) -> None:
    """End the connection of a response that has begun, without what the client did not take of it."""
    take_over: TakeOver | None = scope.get("extensions", {}).get(TAKE_OVER)
    transport = None if take_over is None else take_over(asyncio.Protocol())
    if transport is not None:
        transport.abort()


def _allowed_seconds(count: int) -> float:
    first = min(count, FIRST_BYTES)
    return IDLE_SECONDS + first / FIRST_BYTES_PER_SECOND + (count - first) / BYTES_PER_SECOND


async def _next_chunk(body: AsyncIterator[bytes]) -> bytes:
    """Return bytes, or none at the end of the body; the server also passes on empty chunks, which do not end it."""
    async for chunk in body:
        if chunk:
            return chunk
    return b""
