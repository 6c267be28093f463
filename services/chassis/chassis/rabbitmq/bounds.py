"""How long the driver may take, and what it means when it cancels who waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PUBLISH_SECONDS = 10.0
ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 5.0
SET_UP_SECONDS = 60.0
"""For connecting, declaring and consuming: a network that swallows everything must not hold an attempt for ever."""
CLOSE_SECONDS = 2.0


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Give the driver so long. When its connection dies it cancels who waits for an answer: to us that is an error."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # we were meant
            raise
        raise ConnectionError("the connection to RabbitMQ was lost") from error
