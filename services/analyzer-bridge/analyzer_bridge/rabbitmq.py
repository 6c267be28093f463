"""RabbitMQ: the connection, the topology, and publishing with confirmation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractChannel, AbstractRobustChannel, AbstractRobustConnection, UnderlayConnection
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from faststream.rabbit.subscriber.usecase import RabbitSubscriber
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from contracts import topology
from contracts.events import CONTENT_TYPE, Event

log = structlog.get_logger()

PUBLISH_SECONDS = 10.0
ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 5.0
SET_UP_SECONDS = 60.0
"""For connecting, declaring and consuming: a network that swallows everything must not hold an attempt for ever."""
RECONNECT_SECONDS = 1.0
HEARTBEAT_SECONDS = 5
"""A connection that swallows everything is noticed by the broker after twice this, by us after some four times."""
CLOSE_SECONDS = 2.0
LOOK_SECONDS = 2.0
"""How often it is looked whether a queue was deleted."""
SETTLE_SECONDS = 1.0
"""How long a deleted queue stays away. RabbitMQ (seen in 3.10) hands a consumer whose queue was deleted on to a queue
of that name that is declared within some 30 ms: it is counted there, and brings nothing of what it is given.
"""
TOLD_SECONDS = 3 * LOOK_SECONDS
"""By then every process has seen that the witness of a deleted queue is gone; then there is a new one."""
LET_GO_SECONDS = 10.0
NO_LIMIT_SECONDS = 600.0
"""FastStream waits for work in hand only when given a time; the limits are those of `drain` and `stop`."""


class RabbitMQ:
    """This process's connection; robust: what was declared and consumed is restored after an outage."""

    def __init__(self, url: str, *, prefetch: int) -> None:
        heartbeat = f"{'&' if '?' in url else '?'}heartbeat={HEARTBEAT_SECONDS}"
        self._broker = RabbitBroker(
            url + heartbeat,
            default_channel=Channel(prefetch_count=prefetch, on_return_raises=True),
            codec=_Raw(),
            apply_types=False,
            timeout=CONNECT_SECONDS,
            reconnect_interval=RECONNECT_SECONDS,
            graceful_timeout=NO_LIMIT_SECONDS,
            logger=None,
        )
        self._connection: AbstractRobustConnection | None = None
        self._binding: AbstractRobustChannel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._missing = False
        self._doubted: UnderlayConnection | None = None
        self._queues: list[topology.Queue] = []
        self._held = 0
        self._free = asyncio.Event()
        self._free.set()
        self._subscribers: list[RabbitSubscriber] = []

    def subscribe(self, queue: topology.Queue, deliver: Callable[[RabbitMessage], Awaitable[None]]) -> None:
        """Hand every message of `queue` to `deliver`: acknowledged when it returns, given back when it raises."""
        self._queues.append(queue)
        # Declared with all the others, so that FastStream need not know the arguments.
        existing = RabbitQueue(queue.name, declare=False)
        subscriber = self._broker.subscriber(existing, ack_policy=AckPolicy.NACK_ON_ERROR)
        subscriber(self._holding(deliver))
        self._subscribers.append(subscriber)

    def start(self) -> None:
        """Begin to connect, for as long as it takes; publishing fails and nothing is consumed until then."""
        self._connecting = asyncio.create_task(self._connect())
        self._keeping = asyncio.create_task(self._keep())

    async def drain(self, seconds: float) -> None:
        """Take no more messages, then let the work in hand end, for so long at most."""
        for task in (self._connecting, self._keeping):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        # Whatever the broker says: when it is away, nothing comes in, and what is in hand is given back.
        with suppress(Exception):
            async with _bounded(seconds):
                await asyncio.gather(*map(_cancel_consumer, self._subscribers))
                await asyncio.gather(*(subscriber.stop() for subscriber in self._subscribers))

    async def stop(self) -> None:
        """Disconnect; the broker gives what is still in hand to another replica."""
        with suppress(Exception):
            async with _bounded(CLOSE_SECONDS):
                await self._broker.stop()

    async def publish(self, event: Event) -> None:
        """Return once the broker has `event` safely in every queue for its type; raises when it has not."""
        await self._send(
            topology.EVENTS_EXCHANGE, event.type, event.encode(), message_id=event.id, content_type=CONTENT_TYPE
        )

    async def pass_on(self, message: RabbitMessage, exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
        """Publish a received message again elsewhere with these headers added; same promise as `publish`."""
        await self._send(
            exchange,
            routing_key,
            message.body,
            message_id=message.message_id,
            content_type=message.content_type or CONTENT_TYPE,
            headers={**message.headers, **headers},
        )

    async def is_up(self) -> bool:
        """Tell whether the broker answers: a channel is opened, since an open connection alone proves nothing."""
        if self._connection is None:
            return False
        async with _bounded(ANSWER_SECONDS), self._connection.channel():
            return True

    async def consumes(self) -> bool:
        """Tell whether this process, by its own word and the broker's, takes messages from every queue of its service.

        A ping would not notice a lost consumer, and a count alone not that it is another replica's.
        """
        if self._connection is None:
            return False
        async with _bounded(ANSWER_SECONDS), self._connection.channel() as channel:
            if not all([await _consumes(subscriber) for subscriber in self._subscribers]):
                return False
            for queue in self._queues:
                found = await channel.declare_queue(queue.name, passive=True)
                if not found.declaration_result.consumer_count:
                    return False
        return True

    async def dead_letters(self) -> dict[str, int]:
        """Return how many messages were set aside from each queue; raises when the broker is away."""
        if self._connection is None:
            raise ConnectionError("RabbitMQ is not connected yet")
        counts = {}
        async with _bounded(ANSWER_SECONDS), self._connection.channel() as channel:
            for queue in self._queues:
                found = await channel.declare_queue(queue.dead_name, passive=True)
                counts[queue.name] = found.declaration_result.message_count or 0
        return counts

    async def _send(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> None:
        message = Message(body, delivery_mode=DeliveryMode.PERSISTENT, timestamp=datetime.now(UTC), **properties)
        if self._connection is None:
            raise ConnectionError("RabbitMQ is not connected yet")
        with self._noticing(self._connection.transport):
            async with _bounded(PUBLISH_SECONDS):
                if exchange == topology.EVENTS_EXCHANGE:
                    await self._bind(routing_key)
                await self._broker.publish(
                    message, exchange=RabbitExchange(exchange, declare=False), routing_key=routing_key, mandatory=True
                )

    async def _keep(self) -> None:
        """Mend, for as long as the service runs, what a connection that restores itself does not notice."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            # Whatever the broker says: the next look comes soon.
            with suppress(Exception):
                async with _bounded(SET_UP_SECONDS):
                    await self._mend()

    async def _mend(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._doubted is not None and self._doubted is connection.transport:
            log.warning("rabbitmq connection given up")
            async with _bounded(CLOSE_SECONDS):
                # The driver opens another at once, with new channels, and restores what was declared and consumed.
                await self._doubted.connection.close()
            self._doubted = None
        elif self._missing:
            await self._replace_queues(connection)
            self._missing = False
        elif not await _all_witnessed(connection, self._queues):
            self._miss()

    async def _replace_queues(self, connection: AbstractRobustConnection) -> None:
        """Declare again what was deleted, and consume anew, whatever the broker says of the consumers there were."""
        log.warning("rabbitmq queue was deleted")
        await asyncio.sleep(SETTLE_SECONDS)
        await self._let_go()
        if connection.transport is not None:
            await connection.transport.connection.close()
        await asyncio.sleep(TOLD_SECONDS)
        await _witness_all(connection)
        log.info("rabbitmq queues declared again")

    def _doubt(self, transport: UnderlayConnection | None) -> None:
        """Have this connection given up, if it is still the present one."""
        self._doubted = transport
        self._woken.set()

    def _miss(self) -> None:
        """Have every queue declared again."""
        self._missing = True
        self._woken.set()

    @contextmanager
    def _noticing(self, transport: UnderlayConnection | None) -> Iterator[None]:
        """Learn from a publish that fails: its connection is not used again, or a queue is declared again."""
        try:
            yield
        except TimeoutError:
            self._doubt(transport)
            raise
        except (ChannelNotFoundEntity, PublishError):
            self._miss()
            raise

    async def _bind(self, event_type: str) -> None:
        """Make sure that none of the queues for these events is missing: `mandatory` proves but one of them."""
        queues = topology.queues_for(event_type)
        if len(queues) <= 1 or self._binding is None:
            return
        channel = await self._binding.get_underlay_channel()
        for queue in queues:
            await channel.queue_bind(queue.name, topology.EVENTS_EXCHANGE, queue.routing_key)

    def _holding(self, deliver: Callable[[RabbitMessage], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def hold(message: RabbitMessage) -> None:
            self._held += 1
            self._free.clear()
            try:
                await deliver(message)
            finally:
                self._held -= 1
                if not self._held:
                    self._free.set()

        return hold

    async def _let_go(self) -> None:
        """Let what is in hand end, for a while: closing a connection cancels it, and its queue may be no more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LET_GO_SECONDS):
                await self._free.wait()

    async def _connect(self) -> None:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            before_sleep=_say_waiting,
        )
        async for attempt in attempts:
            with attempt:
                async with _bounded(SET_UP_SECONDS):
                    await self._set_up()
        log.info("rabbitmq connected", queues=[queue.name for queue in self._queues])

    async def _set_up(self) -> None:
        connection = await self._broker.connect()
        is_new = not await _exists(connection, topology.EVENTS_EXCHANGE)
        # The channel stays open, so that all of it is declared again after an outage.
        await _declare_all(await connection.channel())
        if is_new:
            await _witness_all(connection)
        self._binding = await connection.channel()
        # Messages come while the others still start: their handlers must be able to publish, and FastStream drops,
        # unacknowledged and for good, what is delivered to a subscriber that does not yet say that it runs.
        self._connection = connection
        for subscriber in self._subscribers:
            await _cancel_consumer(subscriber)  # of an attempt that failed half-way
            subscriber.running = True
        await self._broker.start()


async def _cancel_consumer(subscriber: RabbitSubscriber) -> None:
    """FastStream's own way is to wait first, while messages go on coming in; so this is done by hand."""
    queue, tag = subscriber._queue_obj, subscriber._consumer_tag
    if queue is not None and tag is not None:
        await queue.cancel(tag)
        subscriber._consumer_tag = None


async def _consumes(subscriber: RabbitSubscriber) -> bool:
    queue, tag = subscriber._queue_obj, subscriber._consumer_tag
    if queue is None or tag is None:
        return False
    channel = await queue.channel.get_underlay_channel()
    # aiormq forgets the tag when the broker cancels the consumer; its interface does not name the attribute.
    return tag in getattr(channel, "consumers", ())


class _Raw:
    """FastStream's codec: hands the whole message on, since an event that fails its schema still has an outcome."""

    async def decode(self, msg: Any) -> Any:
        return msg

    async def encode(self, msg: Any, serializer: object = None) -> tuple[bytes, str | None]:  # noqa: ARG002 - protocol
        return bytes(msg), CONTENT_TYPE


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[None]:
    """Give the driver so long. When its connection dies it cancels who waits for an answer: to us that is an error."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # we were meant
            raise
        raise ConnectionError("the connection to RabbitMQ was lost") from error


def _say_waiting(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("rabbitmq cannot be reached yet", attempt=state.attempt_number, reason=type(error).__name__)


async def _exists(connection: AbstractRobustConnection, exchange: str) -> bool:
    try:
        async with connection.channel() as channel:
            await channel.get_exchange(exchange)
    except ChannelNotFoundEntity:
        return False
    return True


async def _all_witnessed(connection: AbstractRobustConnection, queues: Iterable[topology.Queue]) -> bool:
    """Tell whether none of the queues was deleted, be there another in its place or not."""
    try:
        async with connection.channel() as channel:
            for queue in queues:
                await channel.get_exchange(queue.witness_name)
    except ChannelNotFoundEntity:
        return False
    return True


async def _witness_all(connection: AbstractRobustConnection) -> None:
    """Declare the witnesses: never together with queues, nor again by itself after an outage."""
    async with connection.channel() as channel:
        for queue in topology.QUEUES:
            witness = await channel.declare_exchange(
                queue.witness_name, ExchangeType.FANOUT, durable=True, auto_delete=True, robust=False
            )
            declared = await channel.get_queue(queue.name)
            await declared.bind(witness)


async def _declare_all(channel: AbstractChannel) -> None:
    """Declare every service's queues: an event published before its subscriber first ran must still reach it."""
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
