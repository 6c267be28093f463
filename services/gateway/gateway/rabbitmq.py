"""RabbitMQ: the connection, the topology, and publishing with confirmation."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime

import structlog
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractChannel, AbstractRobustChannel, AbstractRobustConnection, UnderlayConnection
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from contracts import topology
from contracts.events import CONTENT_TYPE, Event
from gateway.errors import BackEndError

log = structlog.get_logger()

EVENTS = RabbitExchange(topology.EVENTS_EXCHANGE, declare=False)
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


class RabbitMQ:
    """This process's connection; robust: it comes back by itself after an outage."""

    def __init__(self, url: str) -> None:
        heartbeat = f"{'&' if '?' in url else '?'}heartbeat={HEARTBEAT_SECONDS}"
        self._broker = RabbitBroker(
            url + heartbeat,
            default_channel=Channel(on_return_raises=True),
            apply_types=False,
            timeout=CONNECT_SECONDS,
            reconnect_interval=RECONNECT_SECONDS,
            logger=None,
        )
        # Nothing is consumed here, but this service's /health speaks for all.
        self._queues = topology.QUEUES
        self._connection: AbstractRobustConnection | None = None
        self._binding: AbstractRobustChannel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._missing = False
        self._doubted: UnderlayConnection | None = None

    def start(self) -> None:
        """Begin to connect, for as long as it takes; publishing fails until then."""
        self._connecting = asyncio.create_task(self._connect())
        self._keeping = asyncio.create_task(self._keep())

    async def first_connected(self, seconds: float) -> None:
        """Return once the broker was reached for the first time, or after so long."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting], timeout=seconds)

    async def stop(self) -> None:
        """Disconnect."""
        for task in (self._connecting, self._keeping):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        with suppress(Exception):
            async with _bounded(CLOSE_SECONDS):
                await self._broker.stop()

    async def publish(self, event: Event) -> None:
        """Return once `event` is safe in every queue for its type; BackEndError when it is not."""
        if self._connection is None:
            raise BackEndError("RabbitMQ")
        message = Message(
            event.encode(),
            delivery_mode=DeliveryMode.PERSISTENT,
            timestamp=datetime.now(UTC),
            message_id=event.id,
            content_type=CONTENT_TYPE,
        )
        try:
            with self._noticing(self._connection.transport):
                async with _bounded(PUBLISH_SECONDS):
                    await self._bind(event.type)
                    await self._broker.publish(message, exchange=EVENTS, routing_key=event.type, mandatory=True)
        except Exception as error:
            raise BackEndError("RabbitMQ") from error

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

    async def is_up(self) -> bool:
        """Tell whether the broker answers: a channel is opened, since an open connection alone proves nothing."""
        if self._connection is None:
            return False
        async with _bounded(ANSWER_SECONDS), self._connection.channel():
            return True

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

    async def _let_go(self) -> None:
        """Nothing is in hand: this service consumes from no queue."""

    async def _connect(self) -> None:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            before_sleep=_say_waiting,
        )
        async for attempt in attempts:
            with attempt:
                async with _bounded(SET_UP_SECONDS):
                    self._connection = await self._set_up()
        log.info("rabbitmq connected")

    async def _set_up(self) -> AbstractRobustConnection:
        connection = await self._broker.connect()
        is_new = not await _exists(connection, topology.EVENTS_EXCHANGE)
        # The channel stays open, so that all of it is declared again after an outage.
        await _declare_all(await connection.channel())
        if is_new:
            await _witness_all(connection)
        self._binding = await connection.channel()
        await self._broker.start()
        return connection


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
