"""This process's connection to RabbitMQ. The driver connects again after an outage, and everything goes on."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from time import monotonic
from typing import Any

import structlog
from aio_pika import Message
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection, UnderlayConnection
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from chassis.errors import BackEndError
from chassis.rabbitmq import messages
from chassis.rabbitmq.background import in_background
from chassis.rabbitmq.bounds import (
    ANSWER_SECONDS,
    CLOSE_SECONDS,
    CONNECT_SECONDS,
    PUBLISH_SECONDS,
    SET_UP_SECONDS,
    bounded,
)
from chassis.rabbitmq.channels import question
from chassis.rabbitmq.consuming import RENEW_SECONDS, Consumers, Deliver
from chassis.rabbitmq.declaring import Redeclaring, declare_topology
from chassis.rabbitmq.fan_out import FanOut
from contracts import topology
from contracts.events import Event

log = structlog.get_logger()

RECONNECT_SECONDS = 1.0
HEARTBEAT_SECONDS = 5
"""The broker notices a connection that has gone silent after twice this time, we after about four times."""


class RabbitMQ:
    """Publishes, and consumes the queues subscribed before `start`: up to `prefetch` messages at once from each.

    While the broker answers, but one of the queues could not be consumed from for `give_up_after` seconds, the process
    ends by SIGTERM; None means never. A consumer that was given nothing for `renew_after` seconds begins anew.
    """

    def __init__(
        self,
        url: str,
        *,
        prefetch: int = 1,
        give_up_after: float | None = None,
        renew_after: float = RENEW_SECONDS,
    ) -> None:
        heartbeat = f"{'&' if '?' in url else '?'}heartbeat={HEARTBEAT_SECONDS}"
        self._broker = RabbitBroker(
            url + heartbeat,
            default_channel=Channel(on_return_raises=True),
            apply_types=False,
            timeout=CONNECT_SECONDS,
            reconnect_interval=RECONNECT_SECONDS,
            logger=None,
        )
        self._consumers = Consumers(prefetch, renew_after=renew_after, give_up_after=give_up_after)
        self._fan_outs: list[FanOut] = []
        self._redeclaring = Redeclaring()
        self._connection: AbstractRobustConnection | None = None
        self._given_up: UnderlayConnection | None = None
        self._running: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._confirmed_at = 0.0

    def subscribe(self, queue: topology.Queue, deliver: Deliver) -> None:
        """Call `deliver` with every message of `queue`; acknowledge when it returns, requeue when it raises."""
        self._consumers.add(queue, deliver)

    def fan_out(
        self, exchange: str, prefix: str, deliver: Callable[[str, bytes], None], on_connected: Callable[[], None]
    ) -> FanOut:
        """Call `deliver` with the subject and body of every message on a direct exchange whose key was bound.

        The FanOut that is returned binds keys and publishes. `prefix` begins the name of this process's queue.
        `on_connected` is called once all keys are bound on a new connection: messages may have been missed before.
        """
        fan_out = FanOut(exchange, prefix, deliver, on_connected)
        self._fan_outs.append(fan_out)
        return fan_out

    def start(self) -> None:
        """Begin to connect, and try until it succeeds. Until then, publishing fails and nothing is consumed."""
        self._running = asyncio.create_task(self._run())

    async def first_connected(self, seconds: float) -> None:
        """Return once the broker was reached for the first time, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._connected.wait()

    async def drain(self, seconds: float) -> None:
        """Take no more messages, then let the work in hand end, for at most `seconds`."""
        await self._stop_running()
        # Errors do not matter: when the broker is away, no message arrives, and those in hand are delivered again.
        with suppress(Exception):
            async with bounded(seconds):
                await self._consumers.cancel()
                await self._consumers.idle()

    async def stop(self) -> None:
        """Disconnect. The broker delivers the messages that are still in hand to another replica."""
        await self._stop_running()
        self._redeclaring.stop()
        with suppress(Exception):
            async with bounded(CLOSE_SECONDS):
                await self._consumers.cancel()
        for fan_out in self._fan_outs:
            await fan_out.stop()
        with suppress(Exception):
            async with bounded(CLOSE_SECONDS):
                await self._broker.stop()

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        """Return once the broker has stored `event`; BackEndError when it may not have, or when no queue takes it.

        `redriven` marks a repeat, which subscribers try once.
        """
        await self._send(topology.EVENTS_EXCHANGE, event.type, messages.event_message(event, redriven=redriven))

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        """Put a repeat of an event into one queue alone, where it is tried once; BackEndError as for `publish`."""
        await self._send("", queue.name, messages.event_message(event, redriven=True))

    async def pass_on(
        self, message: AbstractIncomingMessage, exchange: str, routing_key: str, headers: dict[str, Any]
    ) -> None:
        """Publish a received message again elsewhere, with these headers added; same guarantee as `publish`."""
        again = messages.message(
            message.body,
            message_id=message.message_id,
            content_type=message.content_type,
            headers={**message.headers, **headers},
        )
        await self._send(exchange, routing_key, again)

    async def is_up(self) -> bool:
        """Tell whether the broker answers. A channel is opened, because an open connection alone proves nothing."""
        if self._connection is None:
            return False
        async with bounded(ANSWER_SECONDS), question(self._connection):
            return True

    async def consumes(self) -> bool:
        """Tell whether this process consumes from each of its queues, as far as both it and the broker know.

        A ping would not notice a lost consumer. The broker's count alone might be of another replica's consumer.
        """
        if self._connection is None:
            return False
        fan_out_names = [fan_out.queue_name for fan_out in self._fan_outs]
        async with bounded(ANSWER_SECONDS), question(self._connection) as channel:
            if not self._consumers.are_there():
                return False
            for name in (*(queue.name for queue in self._consumers.queues), *fan_out_names):
                if name is None:
                    return False
                found = await channel.queue_declare(name, passive=True)
                if not found.consumer_count:
                    return False
        return True

    def consuming_since(self) -> datetime | None:
        """Return since when all consumers of this process have consumed; None while one does not, or without any.

        A lost connection or a deleted queue ends it. A planned renewal of a consumer does not.
        """
        return self._consumers.since()

    async def depths(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many messages wait in each queue, 0 where there is none; BackEndError when the broker is away."""
        counts = dict.fromkeys(names, 0)
        try:
            async with bounded(ANSWER_SECONDS):
                await self._count(counts)
        except Exception as error:
            raise BackEndError("RabbitMQ", type(error).__name__) from error
        return counts

    async def dead_letters(self) -> dict[str, int]:
        """Return the number of dead letters by queue name; BackEndError when the broker is away."""
        queues = self._consumers.queues or topology.QUEUES
        counts = await self.depths(queue.dead_name for queue in queues)
        return {queue.name: counts[queue.dead_name] for queue in queues}

    async def _count(self, counts: dict[str, int]) -> None:
        if self._connection is None:
            raise ConnectionError("RabbitMQ is not connected yet")
        left = list(counts)
        while left:
            # The broker closes a channel on which it was asked for a queue that does not exist.
            with suppress(ChannelNotFoundEntity):
                async with question(self._connection) as channel:
                    while left:
                        name = left.pop()
                        counts[name] = (await channel.queue_declare(name, passive=True)).message_count or 0

    async def _send(self, exchange: str, routing_key: str, message: Message) -> None:
        try:
            if self._connection is None:
                raise ConnectionError("RabbitMQ is not connected yet")  # noqa: TRY301 - the `except` below translates it
            with self._noticing(self._connection, exchange or routing_key):
                async with bounded(PUBLISH_SECONDS):
                    await self._broker.publish(
                        message,
                        exchange=RabbitExchange(exchange, declare=False),
                        routing_key=routing_key,
                        mandatory=True,
                    )
                self._confirmed_at = monotonic()
        except Exception as error:
            raise BackEndError("RabbitMQ", type(error).__name__) from error

    @contextmanager
    def _noticing(self, connection: AbstractRobustConnection, to: str) -> Iterator[None]:
        """Learn from a publish that fails: replace a connection that confirms nothing, and queues that are missing.

        A connection on which other publishes were confirmed meanwhile is good, and the broker, or one queue, is slow.
        To replace it would fail all that is under way, and have it done again by a broker that has too much to do.
        """
        transport, began = connection.transport, monotonic()
        try:
            yield
        except TimeoutError:
            if self._confirmed_at < began and transport is not None and transport is not self._given_up:
                log.warning("rabbitmq connection given up")
                self._given_up = transport
                in_background(_close(transport))
            raise
        except (ChannelNotFoundEntity, PublishError):
            self._redeclaring.begin(connection, to)
            raise

    async def _run(self) -> None:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            before_sleep=_say_waiting,
        )
        async for attempt in attempts:
            with attempt:
                async with bounded(SET_UP_SECONDS):
                    await self._set_up()
        log.info("rabbitmq connected", queues=[queue.name for queue in self._consumers.queues])
        self._connected.set()

    async def _set_up(self) -> None:
        connection = await self._broker.connect()
        await declare_topology(connection)
        await self._broker.start()
        # Before consuming starts: the handler of the first message must be able to publish.
        self._connection = connection
        for fan_out in self._fan_outs:
            fan_out.start(connection)
        self._consumers.start(connection, self._redeclaring)

    async def _stop_running(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])


async def _close(transport: UnderlayConnection) -> None:
    """Close a connection, which the driver then replaces at once. One that has gone silent may need several tries."""
    while not transport.connection.is_closed:
        with suppress(Exception):
            async with bounded(CLOSE_SECONDS):
                await transport.connection.close()
                return
        await asyncio.sleep(RECONNECT_SECONDS)


def _say_waiting(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("rabbitmq cannot be reached yet", attempt=state.attempt_number, reason=type(error).__name__)
