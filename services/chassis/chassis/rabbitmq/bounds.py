"""Time limits for the driver, and what it means when the driver cancels a task."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PUBLISH_SECONDS = 10.0
ANSWER_SECONDS = 5.0
CONSUME_SECONDS = 10.0
CONNECT_SECONDS = 5.0
SET_UP_SECONDS = 60.0
"""Limits one attempt to connect and declare: on a network that drops everything, it must not hang for ever."""
CLOSE_SECONDS = 2.0


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Limit the block to `seconds`: TimeoutError after that, ConnectionError when the connection is lost.

    When its connection dies, the driver cancels the tasks that wait for an answer. To us that is an error, not a
    cancellation.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # this task itself was cancelled, not by the driver
            raise
        raise ConnectionError("the connection to RabbitMQ was lost") from error
