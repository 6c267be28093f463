"""An exchange by whose keys replicas listen: each message reaches every replica bound to its key, without guarantee."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import structlog
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractRobustConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from prometheus_client import Counter

from chassis.errors import reason_of
from chassis.rabbitmq.bounds import ANSWER_SECONDS, PUBLISH_SECONDS, SET_UP_SECONDS, bounded
from chassis.rabbitmq.channels import close_channel, open_channel
from chassis.rabbitmq.messages import event_message
from contracts.events import Event

log = structlog.get_logger()

RETRY_SECONDS = 1.0
CHANGE_SECONDS = 15.0
"""Limits the change of one binding. A broker that is merely slow must not cost all of them."""
MESSAGES = Counter("sori_fan_out_messages", "Messages that this replica was given of those told to replicas.")

Deliver = Callable[[str, bytes], None]
"""Takes a message: its subject and its body."""


class FanOut:
    """One process's end of the exchange: a queue that is bound to the keys that this process wants to hear.

    One task changes the bindings, in order, on one channel. It compares what is wanted with what is bound, so that keys
    may be wanted and given up at any time. On each new connection it binds all that is wanted, and then calls
    `on_connected`, because messages may have been missed before.
    """

    def __init__(self, exchange: str, prefix: str, deliver: Deliver, on_connected: Callable[[], None]) -> None:
        self._exchange = exchange
        self._prefix = prefix
        self._deliver = deliver
        self._on_connected = on_connected
        self._wanted: set[str] = set()
        self._bound: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._woken = asyncio.Event()
        self._listening: _Listening | None = None
        self._is_listening = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def queue_name(self) -> str | None:
        """The queue that this process listens with now; None while it does not listen."""
        return None if self._listening is None else self._listening.queue

    def start(self, connection: AbstractRobustConnection) -> None:
        """Begin to listen, and begin anew whenever something ends it."""
        self._running = asyncio.create_task(self._run(connection))

    async def stop(self) -> None:
        """Listen no more, and tell nothing."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def bind(self, key: str) -> None:
        """Return once messages with `key` come to this process.

        While this process does not listen, it returns at once, and after ANSWER_SECONDS in any case: the key is bound
        as soon as that is possible.
        """
        self._wanted.add(key)
        if self._listening is None or key in self._bound:
            return
        self._woken.set()
        waiting = self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        await asyncio.wait([waiting], timeout=ANSWER_SECONDS)

    def unbind(self, key: str) -> None:
        """Have messages with `key` come no more, from some moment on."""
        self._wanted.discard(key)
        self._woken.set()

    async def tell(self, event: Event, key: str) -> None:
        """Publish to every replica that is bound to `key`; unconfirmed, so it may be lost in an outage."""
        message = event_message(event)
        # Nobody keeps it: the queues that it goes to live as long as their processes.
        message.delivery_mode = DeliveryMode.NOT_PERSISTENT
        message.correlation_id = event.subject
        async with bounded(PUBLISH_SECONDS):
            while self._listening is None:
                await self._is_listening.wait()
            await self._listening.channel.basic_publish(
                message.body, exchange=self._exchange, routing_key=key, properties=message.properties
            )

    async def _run(self, connection: AbstractRobustConnection) -> None:
        while True:
            try:
                await self._listen(connection)
            except ConnectionError:  # said by whatever else uses the connection
                pass
            except Exception as error:  # noqa: BLE001 - whatever ended it, it begins anew
                log.warning("rabbitmq fan-out lost", exchange=self._exchange, reason=reason_of(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, connection: AbstractRobustConnection) -> None:
        """Listen until the channel is closed or the queue deleted: ConnectionError; or until a binding fails."""
        async with bounded(SET_UP_SECONDS):
            channel = await open_channel(connection)
        # A name of its own each time: the broker may not know yet that the channel before it is gone.
        listening = _Listening(channel, f"{self._prefix}.{uuid4()}", self._woken.set)
        try:
            async with bounded(SET_UP_SECONDS):
                await channel.exchange_declare(self._exchange, exchange_type="direct", durable=True)
                await channel.queue_declare(listening.queue, exclusive=True, auto_delete=True)
                await channel.basic_consume(listening.queue, self._on_message, no_ack=True)
                await self._bind_missing(listening)
            # Nothing is awaited since the last wanted key was bound, so no key can be wanted in between.
            self._listening = listening
            self._is_listening.set()
            self._on_connected()
            while not listening.is_over:
                await self._woken.wait()
                self._woken.clear()
                await self._bind_missing(listening)
                await self._unbind_rest(listening)
            raise ConnectionError("the channel was closed, or the queue deleted")
        finally:
            self._listening = None
            self._is_listening.clear()
            self._bound.clear()
            for key in list(self._waiting):  # on_connected is called when they are bound
                self._release(key)
            if not channel.is_closed:
                close_channel(channel)

    async def _bind_missing(self, listening: "_Listening") -> None:
        while missing := self._wanted - self._bound:
            for key in missing:
                async with bounded(CHANGE_SECONDS):
                    await listening.channel.queue_bind(listening.queue, self._exchange, key)
                self._bound.add(key)
                self._release(key)

    async def _unbind_rest(self, listening: "_Listening") -> None:
        for key in self._bound - self._wanted:
            if key in self._wanted:  # again, while another was being unbound
                continue
            # Not bound from now on: who wants it again meanwhile waits until it is bound again, on the same channel.
            self._bound.discard(key)
            async with bounded(CHANGE_SECONDS):
                await listening.channel.queue_unbind(listening.queue, self._exchange, key)

    def _release(self, key: str) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.set_result(None)

    async def _on_message(self, message: DeliveredMessage) -> None:
        MESSAGES.inc()
        self._deliver(message.header.properties.correlation_id or "", message.body)


class _Listening:
    """The queue and its channel, and whether they are still there."""

    def __init__(self, channel: AbstractChannel, queue: str, on_over: Callable[[], None]) -> None:
        self.channel = channel
        self.queue = queue
        self.is_over = False
        self._on_over = on_over
        channel.closing.add_done_callback(self._end)
        channel.on_consumer_cancel_callbacks.add(self._end)

    def _end(self, _: object) -> None:
        self.is_over = True
        self._on_over()
