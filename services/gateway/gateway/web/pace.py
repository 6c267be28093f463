"""How slowly a request's body may arrive: every upload holds one of few slots."""

import asyncio
import time
from collections.abc import AsyncIterator

from contracts import problems
from gateway.web.problems import ProblemError

IDLE_SECONDS = 30.0
"""How long a client may send nothing."""
LEAST_BYTES_PER_SECOND = 1024
"""The least average speed after IDLE_SECONDS."""


async def paced(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what arrives; ProblemError when nothing does for too long, or all of it too slowly."""
    received = 0
    started = time.monotonic()
    while chunk := await _next_chunk(body):
        yield chunk
        received += len(chunk)
        elapsed = time.monotonic() - started
        if elapsed > IDLE_SECONDS and received < elapsed * LEAST_BYTES_PER_SECOND:
            raise ProblemError(problems.UPLOAD_TOO_SLOW, close=True)


async def _next_chunk(body: AsyncIterator[bytes]) -> bytes:
    """Return bytes, or none at the end of the body."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            # The server also passes on empty chunks, which do not end the body.
            while True:
                chunk = await anext(body)
                if chunk:
                    return chunk
    except StopAsyncIteration:
        return b""
    except TimeoutError:
        raise ProblemError(problems.UPLOAD_TOO_SLOW, close=True) from None
