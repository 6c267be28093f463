"""The queues on a real broker: all that the topology has are there, as it has them, once services have begun."""

from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelClosed, ChannelPreconditionFailed

from contracts import topology
from local_stack.stack import Stack

EXPECTED: dict[str, dict[str, Any]] = {
    **{queue.name: queue.arguments for queue in topology.QUEUES},
    **{queue.dead_name: topology.DEAD_ARGUMENTS for queue in topology.QUEUES},
    **{delay.name: delay.arguments for delay in topology.RETRY_DELAYS},
}
EXCHANGES = {
    topology.EVENTS_EXCHANGE: aio_pika.ExchangeType.TOPIC,
    topology.PROGRESS_EXCHANGE: aio_pika.ExchangeType.DIRECT,
    **{delay.name: aio_pika.ExchangeType.FANOUT for delay in topology.RETRY_DELAYS},
}


@pytest.fixture
async def connection(stack: Stack) -> AsyncIterator[AbstractConnection]:
    async with await aio_pika.connect(stack.settings["RABBITMQ_URL"]) as opened:
        yield opened


def test_every_queue_has_dead_letters_behind_it() -> None:
    for queue in topology.QUEUES:
        assert EXPECTED[queue.arguments["x-dead-letter-routing-key"]] == topology.DEAD_ARGUMENTS


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_queue_is_there(connection: AbstractConnection, name: str) -> None:
    async with connection.channel() as channel:
        assert (await channel.declare_queue(name, passive=True)).name == name


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_queue_has_the_arguments_of_the_topology(connection: AbstractConnection, name: str) -> None:
    """The broker itself compares: the same again is welcome, anything else is refused."""
    async with connection.channel() as channel:
        await channel.declare_queue(name, durable=True, arguments=EXPECTED[name])
    for argument in EXPECTED[name]:
        others = {key: value for key, value in EXPECTED[name].items() if key != argument}
        channel = await connection.channel()
        with pytest.raises((ChannelPreconditionFailed, ChannelClosed)):
            await channel.declare_queue(name, durable=True, arguments=others)


@pytest.mark.parametrize(("name", "kind"), EXCHANGES.items())
async def test_an_exchange_is_there_and_of_its_kind(
    connection: AbstractConnection, name: str, kind: aio_pika.ExchangeType
) -> None:
    async with connection.channel() as channel:
        await channel.declare_exchange(name, kind, durable=True)
    channel = await connection.channel()
    with pytest.raises((ChannelPreconditionFailed, ChannelClosed)):
        await channel.declare_exchange(name, aio_pika.ExchangeType.HEADERS, durable=True)


@pytest.mark.parametrize("queue", topology.QUEUES, ids=lambda queue: queue.name)
async def test_every_replica_consumes_the_queues_of_its_service(
    connection: AbstractConnection, stack: Stack, queue: topology.Queue
) -> None:
    async with connection.channel() as channel:
        found = await channel.declare_queue(queue.name, passive=True)
        dead = await channel.declare_queue(queue.dead_name, passive=True)
    assert found.declaration_result.consumer_count == stack.plan.replicas
    assert dead.declaration_result.consumer_count == 0, "dead letters wait for an operator"
