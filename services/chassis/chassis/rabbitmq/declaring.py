"""Declares the whole topology, and detects that one of its queues was deleted."""

from collections.abc import Iterable

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractRobustConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from chassis.rabbitmq.questions import question
from contracts import topology


async def declare_topology(connection: AbstractRobustConnection) -> None:
    """Declare every service's queues: an event published before its subscriber first ran must still reach it."""
    is_new = not await _exists(connection, topology.EVENTS_EXCHANGE)
    # The channel stays open, so that the driver declares everything again after an outage.
    await declare_all(await connection.channel())
    if is_new:
        await declare_witnesses(connection)


async def all_witnessed(connection: AbstractRobustConnection, queues: Iterable[topology.Queue]) -> bool:
    """Tell whether no queue was deleted. One that was declared again counts as deleted: its witness is missing."""
    try:
        async with question(connection) as channel:
            for queue in queues:
                await channel.exchange_declare(queue.witness_name, passive=True)
    except ChannelNotFoundEntity:
        return False
    return True


async def declare_witnesses(connection: AbstractRobustConnection) -> None:
    """Declare the witness of every queue (topology.Queue.witness_name).

    Witnesses are never declared together with the queues, and the driver does not restore them after an outage: a
    missing witness shows that its queue was deleted.
    """
    async with connection.channel() as channel:
        for queue in topology.QUEUES:
            witness = await channel.declare_exchange(
                queue.witness_name, ExchangeType.FANOUT, durable=True, auto_delete=True, robust=False
            )
            declared = await channel.get_queue(queue.name)
            await declared.bind(witness)


async def _exists(connection: AbstractRobustConnection, exchange: str) -> bool:
    try:
        async with question(connection) as channel:
            await channel.exchange_declare(exchange, passive=True)
    except ChannelNotFoundEntity:
        return False
    return True


async def declare_all(channel: AbstractChannel) -> None:
    """Declare every exchange and queue with its bindings; one that is there already stays as it is."""
    events = await channel.declare_exchange(topology.EVENTS_EXCHANGE, ExchangeType.TOPIC, durable=True)
    await channel.declare_exchange(topology.PROGRESS_EXCHANGE, ExchangeType.FANOUT, durable=True)
    for delay in topology.RETRY_DELAYS:
        exchange = await channel.declare_exchange(delay.name, ExchangeType.FANOUT, durable=True)
        waiting = await channel.declare_queue(delay.name, durable=True, arguments=delay.arguments)
        await waiting.bind(exchange)
    for queue in topology.QUEUES:
        await channel.declare_queue(queue.dead_name, durable=True, arguments=topology.DEAD_ARGUMENTS)
        declared = await channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
        await declared.bind(events, queue.routing_key)
