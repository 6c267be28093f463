"""Channels that are used once: they open in one round trip, and the driver does not restore them after an outage."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractRobustConnection
from aiormq.abc import AbstractChannel

from chassis.rabbitmq.background import in_background


async def open_channel(connection: AbstractRobustConnection) -> AbstractChannel:
    """Open a channel without confirms; ConnectionError when the broker is away."""
    if connection.transport is None:
        raise ConnectionError("RabbitMQ is away")
    return await connection.transport.connection.channel(publisher_confirms=False)


def close_channel(channel: AbstractChannel) -> None:
    """Have a channel closed by a task of its own, so that no time limit of the caller's can interrupt the closing.

    If one did, the driver would close the channel a second time, and for that the broker ends the whole connection,
    with everything else that runs on it.
    """
    in_background(_close(channel))


@asynccontextmanager
async def question(connection: AbstractRobustConnection) -> AsyncIterator[AbstractChannel]:
    """Yield a channel for one question; ConnectionError when the broker is away."""
    channel = await open_channel(connection)
    try:
        yield channel
    finally:
        close_channel(channel)


async def _close(channel: AbstractChannel) -> None:
    # If the connection was lost meanwhile, the channel is gone with it.
    with suppress(Exception):
        await channel.close(None)
