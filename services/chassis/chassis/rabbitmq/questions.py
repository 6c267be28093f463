"""Channels for a single question to the broker: whether it answers, what a queue has, what exists."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractRobustConnection
from aiormq.abc import AbstractChannel

_closing: set[asyncio.Task[None]] = set()
"""Channels that are being closed: the event loop itself keeps no task alive."""


@asynccontextmanager
async def question(connection: AbstractRobustConnection) -> AsyncIterator[AbstractChannel]:
    """Give a channel for one question; it opens in one round trip, and is not restored after an outage.

    A task of its own closes it, so no time limit on the question can interrupt the closing. The driver would then close
    the channel a second time, and the broker ends the whole connection for that, with all that others do on it.
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
    # A connection that is lost meanwhile has taken the channel with it.
    with suppress(Exception):
        await channel.close(None)
