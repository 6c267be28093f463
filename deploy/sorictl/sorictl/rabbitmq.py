"""RabbitMQ: takes messages without losing them, publishes with confirmation, declares and removes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ConnectionClosed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from chassis.rabbitmq import messages
from chassis.rabbitmq.declaring import declare_all
from contracts import topology
from contracts.events import Event
from sorictl.errors import BrokerError
from sorictl.letter import Message
from sorictl.retired import QueueState

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 10.0
LETTERS_A_CHANNEL = 30
"""When 32 commands to a queue are pending (`quorum_commands_soft_limit`), a channel of RabbitMQ holds further ones back
and later sends them in any order. A channel that takes at most this many never reaches the limit, however slow the
queue is."""
MOST_CHANNELS = 1000
"""RabbitMQ allows 2,047 per connection. What the last channel takes beyond its share may come back in another order."""


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


class Lot:
    """The messages that one channel took."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._taken = 0
        self._held: set[int] = set()

    @property
    def full(self) -> bool:
        """Whether another channel should take what follows."""
        return self._taken >= LETTERS_A_CHANNEL

    @property
    def empty(self) -> bool:
        """Whether nothing is left to give back."""
        return not self._held

    async def take(self, name: str) -> TakenMessage | None:
        """Take the queue's first message, if there is one."""
        queue = await self._channel.get_queue(name, ensure=False)
        incoming = await queue.get(fail=False, timeout=ANSWER_SECONDS)
        if incoming is None:
            return None
        self._taken += 1
        self._held.add(_tag(incoming))
        return TakenMessage(incoming, self._held)

    async def give_back(self, name: str) -> None:
        """Give back, in order, what was not removed; what is given back after this returns goes behind it."""
        underlay = await self._channel.get_underlay_channel()
        for tag in sorted(self._held):
            await underlay.basic_nack(tag, requeue=True)
        # The queue itself answers this, after all of the above: its answer proves that it has the messages back.
        await underlay.queue_declare(name, passive=True, timeout=ANSWER_SECONDS)
        await self.close()

    async def close(self) -> None:
        """Close the channel; what it still holds goes back in any order."""
        await self._channel.close()


class RabbitMQ:
    """One connection for one command; an outage ends the command, and what it had taken goes back by itself."""

    def __init__(self, connection: AbstractConnection, publishing: AbstractChannel) -> None:
        self._connection = connection
        self._publishing = publishing

    def waiting(self, queue: topology.Queue) -> AbstractAsyncContextManager[AsyncIterator[TakenMessage]]:
        """Take the queue's dead letters one after another; see `taking`."""
        return self.taking(queue.dead_name)

    @asynccontextmanager
    async def taking(self, queue: str) -> AsyncIterator[AsyncIterator[TakenMessage]]:
        """Take a queue's messages one after another; at the end, those not removed are given back.

        They keep their order, but may come to lie behind those that were not taken. More than 30,000, or those of a
        command that loses its connection, may lie in another order afterwards.

        Meanwhile nobody else sees those that were taken; of dead letters, nothing waits for them. A queue that is not
        declared is empty.
        """
        lots: list[Lot] = []
        try:
            yield self._taken(queue, lots)
        finally:
            for lot in lots:
                # When the connection is lost, the broker gives them back.
                with suppress(AMQPError, ChannelInvalidStateError, ConnectionError):
                    await lot.give_back(queue)

    async def put_back(self, queue: topology.Queue, message: Message, headers: Mapping[str, Any]) -> None:
        """Return once the message lies safely in its queue; BrokerError when the broker does not take it."""
        await self._publish(
            "",
            queue.name,
            messages.message(
                message.body, message_id=message.message_id, content_type=message.content_type, headers=headers
            ),
        )

    async def move(self, message: Message, headers: Mapping[str, Any], new: str) -> None:
        """Return once the message lies safely in another queue, as old as it was; BrokerError when it does not."""
        moved = messages.message(
            message.body, message_id=message.message_id, content_type=message.content_type, headers=headers
        )
        moved.timestamp = message.timestamp
        await self._publish("", new, moved, "it stays where it is.")

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        """Put a repeat of an event into one queue alone, where it is tried once; BrokerError when it is not taken."""
        await self._publish(
            "", queue.name, messages.event_message(event, redriven=True), "`sorictl setup` declares what is missing."
        )

    async def declare(self) -> None:
        """Declare every exchange and queue of this version; BrokerError when one is there in another form."""
        channel = await self._connection.channel(publisher_confirms=False)
        try:
            await declare_all(await channel.get_underlay_channel())
        except ChannelClosed as error:
            raise BrokerError(f"RabbitMQ refuses to declare what Sori needs: {error}") from None
        await channel.close()

    async def state(self, queue: str) -> QueueState | None:
        """Return how many messages wait in a queue and how many consume it; None when there is no such queue."""
        channel = await self._connection.channel(publisher_confirms=False)
        try:
            found = (await channel.declare_queue(queue, passive=True, timeout=ANSWER_SECONDS)).declaration_result
        except ChannelNotFoundEntity:  # which has closed the channel
            return None
        await channel.close()
        return QueueState(found.message_count or 0, found.consumer_count or 0)

    async def unbind(self, queue: str, event_type: str) -> None:
        """Let a queue get no more events of this type."""
        events = await self._publishing.get_exchange(topology.EVENTS_EXCHANGE, ensure=False)
        unbound = await self._publishing.get_queue(queue, ensure=False)
        await unbound.unbind(events, event_type)

    async def remove_queue(self, queue: str) -> None:
        """Delete a queue, whatever is in it: quorum queues know no deletion on the condition that they are empty."""
        await self._publishing.queue_delete(queue)

    async def remove_exchange(self, exchange: str) -> bool:
        """Delete an exchange; tell whether there was one."""
        channel = await self._connection.channel(publisher_confirms=False)
        try:
            await channel.get_exchange(exchange)
        except ChannelNotFoundEntity:  # which has closed the channel
            return False
        await channel.exchange_delete(exchange)
        await channel.close()
        return True

    async def publish(self, event: Event) -> None:
        """Return once the event lies safely in every queue bound to its type; BrokerError when it does not."""
        await self._publish(topology.EVENTS_EXCHANGE, event.type, messages.event_message(event))

    async def _taken(self, name: str, lots: list[Lot]) -> AsyncIterator[TakenMessage]:
        while True:
            await self._make_room(lots)
            try:
                taken = await lots[-1].take(name)
            except ChannelNotFoundEntity:
                return
            if taken is None:
                return
            yield taken

    async def _make_room(self, lots: list[Lot]) -> None:
        if lots and lots[-1].full and lots[-1].empty:
            await lots.pop().close()
        if not lots or (lots[-1].full and len(lots) < MOST_CHANNELS):
            lots.append(Lot(await self._connection.channel(publisher_confirms=False)))

    async def _publish(
        self,
        exchange_name: str,
        routing_key: str,
        message: aio_pika.Message,
        otherwise: str = "the dead letter stays where it is.",
    ) -> None:
        exchange = await self._publishing.get_exchange(exchange_name, ensure=False)
        try:
            await exchange.publish(message, routing_key, mandatory=True, timeout=ANSWER_SECONDS)
        except DeliveryError:
            raise BrokerError(f"RabbitMQ did not take a message for {routing_key}; {otherwise}") from None


def _tag(incoming: AbstractIncomingMessage) -> int:
    return incoming.delivery_tag or 0


@asynccontextmanager
async def connected(url: str, *, may_be_new: bool = False) -> AsyncIterator[RabbitMQ]:
    """Connect until the block ends; BrokerError says what does not work, without the password.

    A virtual host that knows nothing of Sori is refused, unless it `may_be_new`.
    """
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or 5672}"
    connection = await _connect(url, place)
    async with connection:
        try:
            publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
            if not may_be_new:
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
    """Refuse a virtual host without Sori: it has no dead letters either, but that is not what was asked."""
    try:
        await channel.get_exchange(topology.EVENTS_EXCHANGE)
    except ChannelNotFoundEntity:
        raise BrokerError(
            f"RabbitMQ at {place} knows nothing of Sori in this virtual host: no service has ever connected to it."
        ) from None
