"""A fan-out exchange: a message from one replica reaches every listening replica at once, without any guarantee."""

from collections.abc import Callable
from uuid import uuid4

from aio_pika import DeliveryMode, ExchangeType
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage, AbstractRobustConnection

from chassis.rabbitmq.bounds import PUBLISH_SECONDS, bounded
from chassis.rabbitmq.messages import event_message
from contracts.events import Event


class FanOut:
    """One process's end of the exchange: a queue that lives as long as the process and needs no acknowledgements."""

    def __init__(
        self, exchange: str, prefix: str, deliver: Callable[[str, bytes], None], on_connected: Callable[[], None]
    ) -> None:
        self.queue_name = f"{prefix}.{uuid4()}"
        self._exchange_name = exchange
        self._deliver = deliver
        self._on_connected = on_connected
        self._exchange: AbstractExchange | None = None

    async def connect(self, connection: AbstractRobustConnection) -> None:
        """Begin to listen. The driver does so again by itself on each new connection."""
        if self._exchange is None:  # else an attempt before this one failed half-way, on the same connection
            connection.reconnect_callbacks.add(lambda *_: self._on_connected())
        channel = await connection.channel(publisher_confirms=False)
        # Declared, although it exists: what this channel declared, the driver declares again after an outage.
        self._exchange = await channel.declare_exchange(self._exchange_name, ExchangeType.FANOUT, durable=True)
        queue = await channel.declare_queue(self.queue_name, exclusive=True, auto_delete=True)
        await queue.bind(self._exchange)
        await queue.consume(self._on_message, no_ack=True)
        # Messages published before now have not reached this process.
        self._on_connected()

    async def tell(self, event: Event) -> None:
        """Publish to every replica, with the subject as routing key; unconfirmed, so it may be lost in an outage."""
        if self._exchange is None:
            raise ConnectionError("RabbitMQ is not connected yet")
        message = event_message(event)
        # Nobody keeps it: the queues that it goes to live as long as their processes.
        message.delivery_mode = DeliveryMode.NOT_PERSISTENT
        async with bounded(PUBLISH_SECONDS):
            await self._exchange.publish(message, routing_key=event.subject, mandatory=False)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        self._deliver(message.routing_key or "", message.body)
