"""Channels for a single question to the broker: whether it answers, what a queue has, what exists."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractRobustConnection
from aiormq.abc import AbstractChannel

_closing: set[asyncio.Task[None]] = set()
"""Tasks that are closing a channel, kept here because the event loop itself keeps no task alive."""


@asynccontextmanager
async def question(connection: AbstractRobustConnection) -> AsyncIterator[AbstractChannel]:
    """Yield a channel for one question. It opens in one round trip, and is not restored after an outage.

    A task of its own closes the channel, so that a time limit on the question cannot interrupt the closing. If it did,
    the driver would close the channel a second time, and for that the broker ends the whole connection, with everything
    else that runs on it. ConnectionError when the broker is away.
    """
    if connection.transport is None:
        raise ConnectionError("RabbitMQ is away")
    channel = await connection.transport.connection.channel(publisher_confirms=False)
    try:
        yield channel
    finally:
        closing = asyncio.create_task(_close(channel))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


async def _close(channel: AbstractChannel) -> None:
    # If the connection was lost meanwhile, the channel is gone with it.
    with suppress(Exception):
        await channel.close(None)
