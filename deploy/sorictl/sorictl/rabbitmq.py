"""RabbitMQ: the dead letters taken without losing them, and publishing with confirmation."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ConnectionClosed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from contracts import topology
from contracts.events import CONTENT_TYPE, Event
from sorictl.errors import BrokerError
from sorictl.letter import Message

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 10.0


class TakenMessage:
    """A message that nobody else has now."""

    def __init__(self, incoming: AbstractIncomingMessage, held: set[int]) -> None:
        self.message = Message(
            incoming.body, incoming.message_id, incoming.headers, incoming.content_type, incoming.timestamp
        )
        self._incoming = incoming
        self._held = held

    async def remove(self) -> None:
        """Acknowledge it."""
        await self._incoming.ack()
        self._held.discard(_tag(self._incoming))


class RabbitMQ:
    """One connection for one command; an outage ends the command, and what it had taken goes back by itself."""

    def __init__(self, connection: AbstractConnection, publishing: AbstractChannel) -> None:
        self._connection = connection
        self._publishing = publishing

    @asynccontextmanager
    async def waiting(self, queue: topology.Queue) -> AsyncIterator[AsyncIterator[TakenMessage]]:
        """Take the queue's dead letters one after another; at the end, those not removed are given back.

        They keep their order, but may come to lie behind those that were not taken.

        Meanwhile nobody else sees those that were taken, but nothing waits for them. A queue that no service has
        declared yet is empty.
        """
        channel = await self._connection.channel(publisher_confirms=False)
        held: set[int] = set()
        try:
            yield _taken(channel, queue.dead_name, held)
        finally:
            # When the connection is lost, the broker gives them back.
            with suppress(AMQPError, ChannelInvalidStateError, ConnectionError):
                await _give_back(channel, queue.dead_name, held)

    async def put_back(self, queue: topology.Queue, message: Message, headers: Mapping[str, Any]) -> None:
        """Return once the message lies safely in its queue; BrokerError when the broker does not take it."""
        await self._publish(
            "",
            queue.name,
            message.body,
            message_id=message.message_id,
            content_type=message.content_type,
            headers=dict(headers),
        )

    async def publish(self, event: Event) -> None:
        """Return once the event lies safely in every queue bound to its type; BrokerError when it does not."""
        await self._publish(
            topology.EVENTS_EXCHANGE, event.type, event.encode(), message_id=event.id, content_type=CONTENT_TYPE
        )

    async def _publish(self, exchange_name: str, routing_key: str, body: bytes, **properties: Any) -> None:
        message = aio_pika.Message(
            body, delivery_mode=DeliveryMode.PERSISTENT, timestamp=datetime.now(UTC), **properties
        )
        exchange = await self._publishing.get_exchange(exchange_name, ensure=False)
        try:
            await exchange.publish(message, routing_key, mandatory=True, timeout=ANSWER_SECONDS)
        except DeliveryError:
            raise BrokerError(
                f"RabbitMQ did not take a message for {routing_key}; the dead letter stays where it is."
            ) from None


async def _taken(channel: AbstractChannel, name: str, held: set[int]) -> AsyncIterator[TakenMessage]:
    queue = await channel.get_queue(name, ensure=False)
    while True:
        try:
            incoming = await queue.get(fail=False, timeout=ANSWER_SECONDS)
        except ChannelNotFoundEntity:
            return
        if incoming is None:
            return
        held.add(_tag(incoming))
        yield TakenMessage(incoming, held)


async def _give_back(channel: AbstractChannel, name: str, held: set[int]) -> None:
    """Give back one by one, each after an answer: what RabbitMQ takes back at once lies there in any order."""
    underlay = await channel.get_underlay_channel()
    for tag in sorted(held):
        await underlay.basic_nack(tag, requeue=True)
        await underlay.queue_declare(name, passive=True, timeout=ANSWER_SECONDS)
    await channel.close()


def _tag(incoming: AbstractIncomingMessage) -> int:
    return incoming.delivery_tag or 0


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RabbitMQ]:
    """Connect until the block ends; BrokerError says what does not work, without the password."""
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or 5672}"
    connection = await _connect(url, place)
    async with connection:
        try:
            publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await _require_sori(publishing, place)
            yield RabbitMQ(connection, publishing)
        except (AMQPError, ChannelInvalidStateError, ConnectionError, TimeoutError):
            raise BrokerError(
                f"The connection to RabbitMQ at {place} was lost; nothing is lost with it: look again once it is back."
            ) from None


async def _connect(url: str, place: str) -> AbstractConnection:
    try:
        return await aio_pika.connect(url, timeout=CONNECT_SECONDS)
    except (AuthenticationError, ProbableAuthenticationError):
        reason = f"RabbitMQ at {place} does not accept the user and password in RABBITMQ_URL."
    except (ConnectionClosed, InvalidFrameError):  # the driver reads the broker's refusal as the latter
        reason = f"RabbitMQ at {place} has no such virtual host as RABBITMQ_URL names, or not for this user."
    except (AMQPError, OSError, TimeoutError):
        reason = f"RabbitMQ at {place} cannot be reached: is it running, and is RABBITMQ_URL right?"
    raise BrokerError(reason)


async def _require_sori(channel: AbstractChannel, place: str) -> None:
    """Elsewhere there are no dead letters either, but that is not what was asked."""
    try:
        await channel.get_exchange(topology.EVENTS_EXCHANGE)
    except ChannelNotFoundEntity:
        raise BrokerError(
            f"RabbitMQ at {place} knows nothing of Sori in this virtual host: no service has ever connected to it."
        ) from None
