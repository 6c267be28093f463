"""Declares the whole topology, and does so again when a part of it is missing."""

import asyncio

import structlog
from aio_pika.abc import AbstractRobustConnection
from aiormq.abc import AbstractChannel

from chassis.errors import reason_of
from chassis.rabbitmq.bounds import SET_UP_SECONDS, bounded
from chassis.rabbitmq.channels import question
from contracts import topology

log = structlog.get_logger()

SETTLE_SECONDS = 1.0
"""How long a deleted queue stays away. If it is declared again within some 30 ms, RabbitMQ (seen in 3.10) attaches the
old queue's consumers to the new one: it counts them, but what it gives them never arrives.
"""


class Redeclaring:
    """Declares the topology again, once for all who find something missing at the same time."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, connection: AbstractRobustConnection, missing: str) -> asyncio.Task[None]:
        """Declare everything again after SETTLE_SECONDS. The task never fails: who still misses a queue asks again."""
        if self._task is None or self._task.done():
            log.warning("rabbitmq queue was deleted", queue=missing)
            self._task = asyncio.create_task(_declare_later(connection))
        return self._task

    def stop(self) -> None:
        """Declare nothing any more."""
        if self._task is not None:
            self._task.cancel()


async def declare_topology(connection: AbstractRobustConnection) -> None:
    """Declare every service's queues: an event published before its subscriber first ran must still reach it."""
    async with question(connection) as channel:
        await declare_all(channel)


async def declare_all(channel: AbstractChannel) -> None:
    """Declare every exchange and queue with its bindings; one that is there already stays as it is."""
    await channel.exchange_declare(topology.EVENTS_EXCHANGE, exchange_type="topic", durable=True)
    await channel.exchange_declare(topology.PROGRESS_EXCHANGE, exchange_type="direct", durable=True)
    for delay in topology.RETRY_DELAYS:
        await channel.exchange_declare(delay.name, exchange_type="fanout", durable=True)
        await channel.queue_declare(delay.name, durable=True, arguments=delay.arguments)
        await channel.queue_bind(delay.name, delay.name)
    for queue in topology.QUEUES:
        await channel.queue_declare(queue.dead_name, durable=True, arguments=topology.DEAD_ARGUMENTS)
        await channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
        await channel.queue_bind(queue.name, topology.EVENTS_EXCHANGE, queue.routing_key)


async def _declare_later(connection: AbstractRobustConnection) -> None:
    await asyncio.sleep(SETTLE_SECONDS)
    try:
        async with bounded(SET_UP_SECONDS):
            await declare_topology(connection)
    except Exception as error:  # noqa: BLE001 - a consumer or publisher that still misses a queue begins this anew
        log.warning("rabbitmq queues could not be declared again", reason=reason_of(error))
    else:
        log.info("rabbitmq queues declared again")
