"""RabbitMQ: the connection, the topology, and publishing with confirmation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import structlog
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractRobustConnection
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
        self._connecting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, for as long as it takes; publishing fails until then."""
        self._connecting = asyncio.create_task(self._connect())

    async def first_connected(self, seconds: float) -> None:
        """Return once the broker was reached for the first time, or after so long."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting], timeout=seconds)

    async def stop(self) -> None:
        """Disconnect."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        with suppress(Exception):
            async with _bounded(CLOSE_SECONDS):
                await self._broker.stop()

    async def publish(self, event: Event) -> None:
        """Return once `event` is safe in every queue bound to its type; BackEndError when it is not."""
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
            async with _bounded(PUBLISH_SECONDS):
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
        await _declare_all(connection)
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


async def _declare_all(connection: AbstractRobustConnection) -> None:
    """Declare every service's queues: an event published before its subscriber first ran must still reach it.

    The channel stays open, so that all of it is declared again after an outage.
    """
    channel = await connection.channel()
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
