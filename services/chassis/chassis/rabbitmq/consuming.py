"""Consuming: hands on every message of a service's queues, acknowledges it when it is done, else requeues it.

This uses the driver directly. FastStream's subscribers have no public way to stop taking messages before they wait for
the work in hand, nor to tell whether their consumer still exists. They also drop, without acknowledgement, messages
that are delivered before their `start` has returned. The driver's own way to restore consumers is not used either: it
declares no queue that is gone, and does not notice a consumer that is given nothing any more.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import structlog
from aio_pika import IncomingMessage
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.abc import AbstractChannel, DeliveredMessage

from chassis.errors import reason_of
from chassis.rabbitmq.background import in_background
from chassis.rabbitmq.bounds import ANSWER_SECONDS, CONSUME_SECONDS, bounded
from chassis.rabbitmq.channels import close_channel, open_channel, question
from chassis.rabbitmq.declaring import Redeclaring
from contracts import topology

log = structlog.get_logger()

RETRY_SECONDS = 1.0
RENEW_SECONDS = 60.0
"""A consumer that was given nothing for so long begins anew on a new channel: it may be one that RabbitMQ starves."""

Deliver = Callable[[AbstractIncomingMessage], Awaitable[None]]


class Consumers:
    """The consumers of this process, one for each queue, each on a channel of its own."""

    def __init__(self, prefetch: int, *, renew_after: float, give_up_after: float | None) -> None:
        self._prefetch = prefetch
        self._renew_after = renew_after
        self._give_up_after = give_up_after
        self._given_up = False
        self._consumers: list[_Consumer] = []
        self._running: list[asyncio.Task[None]] = []
        self._in_hand = _InHand()

    @property
    def queues(self) -> list[topology.Queue]:
        """The queues that are consumed from."""
        return [consumer.queue for consumer in self._consumers]

    def add(self, queue: topology.Queue, deliver: Deliver) -> None:
        """Call `deliver` with every message of `queue`, from `start` on."""

        async def handle(message: AbstractIncomingMessage) -> None:
            with self._in_hand.one():
                await _handle(message, deliver)

        self._consumers.append(_Consumer(queue, handle, self._prefetch, self._renew_after))

    def start(self, connection: AbstractRobustConnection, redeclaring: Redeclaring) -> None:
        """Begin to consume, and begin anew whenever something ends it."""
        self._running = [
            asyncio.create_task(self._run(consumer, connection, redeclaring)) for consumer in self._consumers
        ]

    async def cancel(self) -> None:
        """Take no more messages; the work on those in hand goes on."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        # Errors do not matter: a channel that is broken brings nothing.
        await asyncio.gather(*(consumer.cancel() for consumer in self._consumers), return_exceptions=True)

    async def idle(self) -> None:
        """Return once no message is in hand."""
        await self._in_hand.ended()

    def since(self) -> datetime | None:
        """Return since when every consumer has consumed; None when one does not, or when there is none."""
        begun = [consumer.since() for consumer in self._consumers]
        known = [since for since in begun if since is not None]
        return max(known) if known and len(known) == len(begun) else None

    def are_there(self) -> bool:
        """Tell whether, as far as this process knows, every consumer exists."""
        return all(consumer.since() is not None for consumer in self._consumers)

    async def _run(self, consumer: "_Consumer", connection: AbstractRobustConnection, redeclaring: Redeclaring) -> None:
        failing_since: float | None = None
        while True:
            try:
                await consumer.begin(connection)
                failing_since = None
                await consumer.until_quiet()
            except Exception as error:  # noqa: BLE001 - whatever ended it, it begins anew
                consumer.lose()
                if not await _answers(connection):
                    failing_since = None
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                failing_since = failing_since or time.monotonic()
                log.warning("rabbitmq consumer lost", queue=consumer.queue.name, reason=reason_of(error))
                self._consider(consumer.queue, time.monotonic() - failing_since)
                if isinstance(error, ChannelNotFoundEntity):
                    await asyncio.wait([redeclaring.begin(connection, consumer.queue.name)])
                else:
                    await asyncio.sleep(RETRY_SECONDS)

    def _consider(self, queue: topology.Queue, seconds: float) -> None:
        """End this process when it could not consume for too long: a new one may be able to."""
        if self._give_up_after is None or seconds < self._give_up_after or self._given_up:
            return
        self._given_up = True  # a second signal would cut the work in hand short
        log.error("this process ends: it cannot consume from a queue", queue=queue.name, seconds=round(seconds))
        signal.raise_signal(signal.SIGTERM)


class _Consumer:
    """The consumer of one queue: one receiver after the other."""

    def __init__(self, queue: topology.Queue, handle: Deliver, prefetch: int, renew_after: float) -> None:
        self.queue = queue
        self._handle = handle
        self._prefetch = prefetch
        self._renew_after = renew_after
        self._receiver: _Receiver | None = None
        self._since: datetime | None = None

    def since(self) -> datetime | None:
        """Since when it has consumed without interruption; None while it does not."""
        return self._since if self._receiver is not None and not self._receiver.is_over else None

    async def begin(self, connection: AbstractRobustConnection) -> None:
        """Consume on a new channel, and only then leave the one before it: a renewal interrupts nothing."""
        async with bounded(CONSUME_SECONDS):
            receiver = await _Receiver.begin(connection, self.queue.name, self._handle, self._prefetch)
        self._since = self.since() or datetime.now(UTC)
        self.lose()
        self._receiver = receiver

    async def until_quiet(self) -> None:
        """Return when the channel is to be renewed; raise when it ended by itself."""
        if self._receiver is not None:
            await self._receiver.until_quiet(self._renew_after)

    def lose(self) -> None:
        """Leave what has ended, or could not be renewed."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            in_background(receiver.retire())

    async def cancel(self) -> None:
        try:
            if self._receiver is not None:
                await self._receiver.cancel()
        finally:
            # Not before: until the broker has confirmed it, messages may come.
            self._receiver = None


class _Receiver:
    """A consumer as the broker knows it, on one channel."""

    def __init__(self, channel: AbstractChannel, handle: Deliver) -> None:
        self._channel = channel
        self._handle = handle
        self._tag = ""
        self._in_hand = _InHand()
        self._over = asyncio.Event()
        channel.closing.add_done_callback(lambda _: self._over.set())
        channel.on_consumer_cancel_callbacks.add(lambda _: self._over.set())

    @classmethod
    async def begin(
        cls, connection: AbstractRobustConnection, queue: str, handle: Deliver, prefetch: int
    ) -> "_Receiver":
        channel = await open_channel(connection)
        receiver = cls(channel, handle)
        try:
            await channel.basic_qos(prefetch_count=prefetch)
            answer = await channel.basic_consume(queue, receiver._on_message)
        except BaseException:
            close_channel(channel)
            raise
        receiver._tag = answer.consumer_tag or ""
        return receiver

    @property
    def is_over(self) -> bool:
        """Whether the channel was closed, or the broker has cancelled the consumer because its queue was deleted."""
        return self._over.is_set()

    async def until_quiet(self, seconds: float) -> None:
        """Return when nothing came for `seconds` and nothing is in hand.

        ChannelNotFoundEntity when the queue was deleted, ConnectionError when the channel or connection was closed.
        """
        while (left := seconds - self._in_hand.quiet_seconds()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._over.wait()
                if self._channel.is_closed:
                    raise ConnectionError("the channel was closed")
                raise ChannelNotFoundEntity("the queue was deleted")

    async def cancel(self) -> None:
        """Take no more messages. What is in hand can still be acknowledged."""
        if not self.is_over:
            async with bounded(ANSWER_SECONDS):
                await self._channel.basic_cancel(self._tag)

    async def retire(self) -> None:
        """Take no more messages, and close the channel once nothing is in hand: closing it cancels the work."""
        with suppress(Exception):
            await self.cancel()
        await self._in_hand.ended()
        close_channel(self._channel)

    async def _on_message(self, delivered: DeliveredMessage) -> None:
        with self._in_hand.one():
            await self._handle(IncomingMessage(delivered))


class _InHand:
    """Counts messages in hand."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()
        self._quiet_since = time.monotonic()

    @contextmanager
    def one(self) -> Iterator[None]:
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            self._quiet_since = time.monotonic()
            if not self._count:
                self._none.set()

    async def ended(self) -> None:
        await self._none.wait()

    def quiet_seconds(self) -> float:
        """How long nothing has been in hand."""
        return 0.0 if self._count else time.monotonic() - self._quiet_since


async def _answers(connection: AbstractRobustConnection) -> bool:
    with suppress(Exception):
        async with bounded(ANSWER_SECONDS), question(connection):
            return True
    return False


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
