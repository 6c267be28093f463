"""Consuming: hands on every message of a service's queues, acknowledges it when it is done, else requeues it.

This uses aio-pika directly. FastStream's subscribers have no public way to stop taking messages before they wait for
the work in hand, nor to tell whether their consumer still exists. They also drop, without acknowledgement, messages
that are delivered before their `start` has returned.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from chassis.errors import reason_of
from contracts import topology

log = structlog.get_logger()

Deliver = Callable[[AbstractIncomingMessage], Awaitable[None]]


class Consumers:
    """The consumers of this process, one for each queue, on one channel."""

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self._consumers: list[_Consumer] = []
        self._in_hand = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def queues(self) -> list[topology.Queue]:
        """The queues that are consumed from."""
        return [consumer.queue for consumer in self._consumers]

    def add(self, queue: topology.Queue, deliver: Deliver) -> None:
        """Call `deliver` with every message of `queue`, from `start` on."""
        self._consumers.append(_Consumer(queue, self._handling(deliver)))

    async def start(self, channel: AbstractChannel) -> None:
        """Begin to consume. The driver does so again by itself on each new connection."""
        await self.cancel()  # consumers left by an attempt that failed half-way
        await channel.set_qos(prefetch_count=self._prefetch)
        for consumer in self._consumers:
            await consumer.start(channel)

    async def cancel(self) -> None:
        """Take no more messages; the work on those in hand goes on."""
        await asyncio.gather(*(consumer.cancel() for consumer in self._consumers))

    async def idle(self) -> None:
        """Return once no message is in hand."""
        await self._idle.wait()

    async def are_there(self) -> bool:
        """Tell whether, as far as this process knows, every consumer exists."""
        return all([await consumer.is_there() for consumer in self._consumers])

    def _handling(self, deliver: Deliver) -> Deliver:
        async def handle(message: AbstractIncomingMessage) -> None:
            self._in_hand += 1
            self._idle.clear()
            try:
                await _handle(message, deliver)
            finally:
                self._in_hand -= 1
                if not self._in_hand:
                    self._idle.set()

        return handle


class _Consumer:
    def __init__(self, queue: topology.Queue, handle: Deliver) -> None:
        self.queue = queue
        self._handle = handle
        self._declared: AbstractQueue | None = None
        self._tag = ""

    async def start(self, channel: AbstractChannel) -> None:
        # Passive: the queue was declared together with the rest of the topology.
        self._declared = await channel.declare_queue(self.queue.name, passive=True)
        self._tag = await self._declared.consume(self._handle)

    async def cancel(self) -> None:
        declared, self._declared = self._declared, None
        if declared is not None and self._tag:
            await declared.cancel(self._tag)

    async def is_there(self) -> bool:
        if self._declared is None:
            return False
        channel = await self._declared.channel.get_underlay_channel()
        # aiormq removes the tag when the broker cancels the consumer. Its interface does not declare `consumers`.
        return self._tag in getattr(channel, "consumers", ())


async def _handle(message: AbstractIncomingMessage, deliver: Deliver) -> None:
    try:
        await deliver(message)
    except Exception as error:  # noqa: BLE001 - whatever failed, the message must be delivered again
        log.warning("message given back", reason=reason_of(error))
        # When the connection is lost, the broker requeues the message by itself. `reject`, not `nack`: newer brokers do
        # not count a `nack` as a delivery.
        with suppress(Exception):
            await message.reject(requeue=True)
    else:
        with suppress(Exception):  # as above
            await message.ack()
