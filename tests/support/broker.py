"""RabbitMQ as tests use it: publish anything anywhere, overhear every event, read dead letters."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue, HeadersType

from contracts import events, topology
from contracts.events import Event
from tests.support.waiting import until, until_true


@dataclass
class Overheard:
    """Every event published during `overhearing`, job.progressed included."""

    events: list[Event] = field(default_factory=list)

    def of(self, job_id: str, kind: type[Event] | None = None) -> list[Event]:
        """The events of one job, oldest first."""
        return [e for e in self.events if e.subject == job_id and (kind is None or isinstance(e, kind))]

    async def until(self, job_id: str, kind: type[Event], count: int = 1) -> list[Event]:
        """Wait for `count` events of this kind, and return all of them."""
        await until_true(lambda: len(self.of(job_id, kind)) >= count, f"{count} × {kind.TYPE} of job {job_id}")
        return self.of(job_id, kind)


class Broker:
    """One channel for the whole test run."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel

    async def publish(self, event: Event) -> None:
        """Publish an event as a service does."""
        exchange = await self._channel.get_exchange(topology.EVENTS_EXCHANGE)
        await exchange.publish(_message(event.encode()), event.type)

    async def put(
        self, queue: str, body: bytes, message_id: str | None = None, headers: HeadersType | None = None
    ) -> None:
        """Put a message straight into a queue."""
        await self._channel.default_exchange.publish(_message(body, message_id, headers), queue)

    async def dead_letter(self, queue: topology.Queue, message_id: str) -> AbstractIncomingMessage:
        """Wait for this message among the queue's dead letters, and take it from there."""
        dead = await self._channel.get_queue(queue.dead_name)

        async def look() -> AbstractIncomingMessage | None:
            return await _taken(dead, message_id)

        return await until(look, f"message {message_id} in {queue.dead_name}")

    async def until_empty(self, queue: str) -> None:
        """Wait until no message waits in a queue."""

        async def look() -> bool:
            return await self.waiting(queue) == 0

        await until(look, f"an empty queue {queue}")

    async def waiting(self, queue: str) -> int:
        """How many messages wait in a queue; those that a subscriber has in hand are not counted."""
        return (await self._counts(queue)).message_count or 0

    async def consumers(self, queue: topology.Queue) -> int:
        """How many consumers a queue has."""
        return (await self._counts(queue.name)).consumer_count or 0

    async def delete(self, queue: topology.Queue) -> None:
        """Delete a queue, with whatever is in it and whoever consumes from it."""
        await self._channel.queue_delete(queue.name)

    async def declare(self, queue: topology.Queue) -> None:
        """Declare a queue as services do when they start."""
        declared = await self._channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
        await declared.bind(topology.EVENTS_EXCHANGE, queue.routing_key)

    async def replace(self, queue: topology.Queue) -> None:
        """Delete a queue, and declare it again before the broker has told its consumers."""
        await self._channel.queue_delete(queue.name, nowait=True)
        await self.declare(queue)

    async def _counts(self, queue: str) -> aiormq.spec.Queue.DeclareOk:
        # A robust channel does not declare a known queue a second time, but returns the counts of the first.
        known = await self._channel.declare_queue(queue, passive=True)
        return await known.declare()

    @asynccontextmanager
    async def overhearing(self) -> AsyncIterator[Overheard]:
        """Listen to every event until the block ends, without taking it from anyone."""
        overheard = Overheard()
        queue = await self._channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(topology.EVENTS_EXCHANGE, "#")
        await asyncio.gather(*(queue.bind(topology.PROGRESS_EXCHANGE, one) for one in topology.PARTITIONS))

        async def note(message: AbstractIncomingMessage) -> None:
            overheard.events.append(events.decode(message.body))

        tag = await queue.consume(note, no_ack=True)
        try:
            yield overheard
        finally:
            await queue.cancel(tag)
            await queue.delete(if_unused=False, if_empty=False)

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[Counter[str]]:
        """Count every message of the events exchange by its event's type, until the block ends."""
        counted: Counter[str] = Counter()
        queue = await self._channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(topology.EVENTS_EXCHANGE, "#")

        async def count(message: AbstractIncomingMessage) -> None:
            counted[message.routing_key or ""] += 1

        tag = await queue.consume(count, no_ack=True)
        try:
            yield counted
        finally:
            await queue.cancel(tag)
            await queue.delete(if_unused=False, if_empty=False)

    @asynccontextmanager
    async def doubling(self) -> AsyncIterator[list[str]]:
        """Publish every event of the services once more as soon as it is heard; yields the ids of those events."""
        doubled: list[str] = []
        exchange = await self._channel.get_exchange(topology.EVENTS_EXCHANGE)
        queue = await self._channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(exchange, "#")

        async def double(message: AbstractIncomingMessage) -> None:
            # After a redelivery services publish the same event again; only the first copy is doubled.
            if message.message_id and message.message_id not in doubled:
                doubled.append(message.message_id)
                await exchange.publish(_message(message.body, message.message_id), message.routing_key or "")

        tag = await queue.consume(double, no_ack=True)
        try:
            yield doubled
        finally:
            await queue.cancel(tag)
            await queue.delete(if_unused=False, if_empty=False)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Broker]:
    """Connect until the block ends."""
    connection = await aio_pika.connect_robust(url)
    async with connection:
        yield Broker(await connection.channel())


async def _taken(dead: AbstractQueue, message_id: str) -> AbstractIncomingMessage | None:
    message = await dead.get(fail=False)
    if message is None:
        return None
    if message.message_id != message_id:
        await message.nack(requeue=True)
        return None
    await message.ack()
    return message


def _message(body: bytes, message_id: str | None = None, headers: HeadersType | None = None) -> aio_pika.Message:
    return aio_pika.Message(
        body,
        headers=headers,
        message_id=message_id,
        content_type=events.CONTENT_TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
