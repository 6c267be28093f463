"""What ends a consumer, and that it comes back: in virtual hosts of their own, where no service consumes."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from itertools import count
from typing import Any

import aio_pika
import pytest

from chassis.errors import BackEndError
from chassis.rabbitmq import connection as connection_module
from chassis.rabbitmq.connection import RabbitMQ
from contracts import events, topology
from local_stack.stack import Stack
from tests.support import rabbitmqctl
from tests.support.broker import Broker, connected
from tests.support.proxy import Proxies
from tests.support.rabbitmqctl import virtual_host
from tests.support.waiting import until, until_true
from tests.unit import stories

QUEUE = topology.BRIDGE_AUDIO_STORED
OTHER_QUEUE = topology.UPLOADER_UPLOAD_RECEIVED
RENEW_SECONDS = 2.0
GIVE_UP_SECONDS = 3.0
SHORT_SECONDS = 1.0
LONG_SECONDS = 60.0
AT_ONCE_SECONDS = 2.0
RENEWALS = 10
EVENTS = 200


class Subscriber:
    """A process that consumes one queue, and what it was given."""

    def __init__(self, url: str, **limits: float) -> None:
        self.rabbitmq = RabbitMQ(url, prefetch=8, **limits)
        self.seen: list[str | None] = []
        self.consumer_tags: set[str | None] = set()
        self.then: Callable[[Any], Awaitable[object]] | None = None
        self.rabbitmq.subscribe(QUEUE, self._deliver)

    async def until_seen(self, *event_ids: str, limit_seconds: float = 30.0) -> None:
        await until_true(lambda: set(event_ids) <= set(self.seen), "every event", limit_seconds=limit_seconds)

    async def until_not_consuming(self) -> None:
        await until_true(lambda: self.rabbitmq.consuming_since() is None, "no consumer")

    async def until_consuming(self) -> datetime:
        async def look() -> datetime | None:
            return self.rabbitmq.consuming_since()

        return await until(look, "a consumer")

    async def _deliver(self, message: Any) -> None:
        self.seen.append(message.message_id)
        self.consumer_tags.add(message.consumer_tag)
        if self.then is not None:
            await self.then(message)


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    """A virtual host of this test's own."""
    async with virtual_host(stack) as address:
        yield address


@pytest.fixture
async def broker(url: str) -> AsyncIterator[Broker]:
    """A channel to it, beside those of the subscribers."""
    async with connected(url) as connection:
        yield connection


@asynccontextmanager
async def consuming(url: str, **limits: float) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(url, **limits)
    subscriber.rabbitmq.start()
    await until(subscriber.rabbitmq.consumes, "consumers")
    try:
        yield subscriber
    finally:
        await subscriber.rabbitmq.drain(5)
        await subscriber.rabbitmq.stop()


_numbers = count(1)


def an_event() -> events.AudioStored:
    return stories.stored(f"00000000-0000-4000-8000-{next(_numbers):012}")


async def published(rabbitmq: RabbitMQ) -> str:
    """Publish an event, again until it is confirmed; return its id."""
    event = an_event()
    await until(lambda: confirmed(rabbitmq.publish(event)), "a confirm")
    return event.id


async def confirmed(publishing: Awaitable[None]) -> bool:
    try:
        await publishing
    except BackEndError:
        return False
    return True


@contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """Notice when this process is told to end, which it then does not."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    try:
        yield told
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_a_queue_that_was_deleted_comes_back_with_its_consumer(url: str, broker: Broker) -> None:
    async with consuming(url) as subscriber:
        before = await subscriber.until_consuming()
        await broker.delete(QUEUE)
        await subscriber.until_not_consuming()
        assert not await subscriber.rabbitmq.consumes()
        assert await subscriber.until_consuming() > before
        await subscriber.until_seen(await published(subscriber.rabbitmq))
        assert await subscriber.rabbitmq.consumes()


async def test_work_in_hand_ends_although_its_queue_was_deleted(url: str, broker: Broker) -> None:
    async with consuming(url) as subscriber:
        going = asyncio.Event()
        subscriber.then = lambda _: going.wait()
        await subscriber.until_seen(await published(subscriber.rabbitmq))
        await broker.delete(QUEUE)
        await subscriber.until_not_consuming()
        await subscriber.until_consuming()
        draining = asyncio.create_task(subscriber.rabbitmq.drain(LONG_SECONDS))
        await subscriber.until_not_consuming()
        assert not draining.done(), "it waits for what is in hand"
        going.set()
        await draining


async def test_consumers_that_are_given_nothing_begin_anew(url: str, broker: Broker) -> None:
    """When a queue is replaced at once, RabbitMQ gives messages to consumers that it no longer has."""
    async with consuming(url, renew_after=RENEW_SECONDS) as one, consuming(url, renew_after=RENEW_SECONDS) as other:
        await broker.delete(QUEUE)
        await broker.declare(QUEUE)
        sent = [await published(one.rabbitmq) for _ in range(40)]
        await until_true(lambda: set(sent) <= {*one.seen, *other.seen}, "every event", limit_seconds=10)
        # Both take part again.
        for subscriber in (one, other):
            while not set(subscriber.seen) - set(sent):
                await published(one.rabbitmq)


async def test_a_channel_that_the_broker_closes_is_replaced(url: str) -> None:
    async with consuming(url) as subscriber:
        before = await subscriber.until_consuming()
        # Acknowledged here and by the chassis: for the second time the broker closes the channel.
        subscriber.then = lambda message: message.channel.basic_ack(message.delivery_tag)
        await subscriber.until_seen(await published(subscriber.rabbitmq))
        await subscriber.until_not_consuming()
        subscriber.then = None
        assert await subscriber.until_consuming() > before
        await subscriber.until_seen(await published(subscriber.rabbitmq))


async def test_a_renewal_loses_nothing_and_interrupts_nothing(url: str) -> None:
    async with consuming(url, renew_after=0.01) as subscriber:
        before = await subscriber.until_consuming()
        subscriber.then = lambda _: asyncio.sleep(random.uniform(0, 0.03))
        sent: list[str] = []
        while len(subscriber.consumer_tags) < RENEWALS or len(sent) < EVENTS:
            sent.append(await published(subscriber.rabbitmq))
            await asyncio.sleep(random.uniform(0, 0.03))
        await subscriber.until_seen(*sent)
        assert Counter(subscriber.seen) == Counter(sent)
        assert await subscriber.until_consuming() == before


async def test_a_publish_that_finds_no_queue_fails_and_the_queue_comes_back(url: str, broker: Broker) -> None:
    async with consuming(url) as subscriber:
        before = await subscriber.until_consuming()
        await broker.delete(OTHER_QUEUE)
        with pytest.raises(BackEndError):
            await subscriber.rabbitmq.redrive(an_event(), OTHER_QUEUE)

        async def taken() -> bool:
            return (await subscriber.rabbitmq.depths([OTHER_QUEUE.name]))[OTHER_QUEUE.name] == 1

        await until(lambda: confirmed(subscriber.rabbitmq.redrive(an_event(), OTHER_QUEUE)), "a confirm")
        await until(taken, "a message in the queue")
        assert await subscriber.until_consuming() == before, "the connection is still the same"


async def test_who_cannot_consume_again_ends(url: str, broker: Broker) -> None:
    with told_to_stop() as told:
        async with consuming(url, give_up_after=GIVE_UP_SECONDS):
            await broker.delete(QUEUE)
            began = time.monotonic()
            async with await aio_pika.connect(url) as connection:
                channel = await connection.channel()
                # Nobody else may use an exclusive queue.
                await channel.declare_queue(QUEUE.name, exclusive=True)
                async with asyncio.timeout(GIVE_UP_SECONDS + 20):
                    await told.wait()
            assert time.monotonic() - began >= GIVE_UP_SECONDS


async def test_an_outage_ends_nobody_but_begins_consuming_anew(url: str) -> None:
    with told_to_stop() as told, Proxies.running() as proxies:
        proxy = proxies.in_front_of("rabbitmq", url)
        async with consuming(proxy.through(url), give_up_after=SHORT_SECONDS) as subscriber:
            before = await subscriber.until_consuming()
            proxy.refuse()
            await subscriber.until_not_consuming()
            # The outage itself is what is waited for.
            await asyncio.sleep(2 * SHORT_SECONDS + 1)
            assert subscriber.rabbitmq.consuming_since() is None
            with pytest.raises(BackEndError):
                await subscriber.rabbitmq.depths([QUEUE.name])
            proxy.heal()
            assert await subscriber.until_consuming() > before
            await subscriber.until_seen(await published(subscriber.rabbitmq))
        assert not told.is_set()


async def test_draining_does_not_wait_for_a_broker_that_is_away(url: str) -> None:
    with Proxies.running() as proxies:
        proxy = proxies.in_front_of("rabbitmq", url)
        async with consuming(proxy.through(url)) as subscriber:
            subscriber.then = lambda _: asyncio.Event().wait()
            await subscriber.until_seen(await published(subscriber.rabbitmq))
            proxy.refuse()
            async with asyncio.timeout(AT_ONCE_SECONDS):
                await subscriber.rabbitmq.drain(LONG_SECONDS)


async def test_who_consumes_nothing_has_not_begun_to(url: str) -> None:
    rabbitmq = RabbitMQ(url)
    rabbitmq.start()
    await rabbitmq.first_connected(LONG_SECONDS)
    assert rabbitmq.consuming_since() is None
    await rabbitmq.stop()


async def test_depths_are_of_what_waits_and_0_where_there_is_no_queue(url: str, broker: Broker) -> None:
    async with consuming(url) as subscriber:
        await subscriber.rabbitmq.redrive(an_event(), OTHER_QUEUE)
        await subscriber.rabbitmq.redrive(an_event(), OTHER_QUEUE)
        await broker.delete(QUEUE)
        names = ["no.such.queue", OTHER_QUEUE.name, QUEUE.name, *topology.QUEUES_ON_THE_WAY]
        expected = dict.fromkeys(names, 0) | {OTHER_QUEUE.name: 2}

        async def counted() -> bool:
            return await subscriber.rabbitmq.depths(names) == expected

        await until(counted, "both messages")


async def test_there_are_no_depths_while_the_broker_is_away() -> None:
    with pytest.raises(BackEndError):
        await RabbitMQ("amqp://127.0.0.1:1/").depths([QUEUE.name])


async def test_a_connection_that_confirms_other_publishes_is_not_given_up_for_a_slow_queue(
    stack: Stack, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is under way would fail with it. One that confirms nothing is given up."""
    monkeypatch.setattr(connection_module, "PUBLISH_SECONDS", 2.0)
    with Proxies.running() as proxies:
        way = proxies.in_front_of("rabbitmq", url)
        rabbitmq = RabbitMQ(way.through(url))
        rabbitmq.start()
        for queue in (QUEUE, OTHER_QUEUE):
            # A channel's first message to a queue makes the broker wait for that queue, and the whole channel with it.
            await until(lambda queue=queue: confirmed(rabbitmq.redrive(an_event(), queue)), "a confirm")  # type: ignore[misc] # mypy cannot infer a lambda with a default
        async with rabbitmqctl.stood_still(stack, OTHER_QUEUE.name, url):
            connections = way.accepted
            slow = asyncio.create_task(confirmed(rabbitmq.redrive(an_event(), OTHER_QUEUE)))
            while not slow.done():
                assert await confirmed(rabbitmq.redrive(an_event(), QUEUE))
            assert not slow.result()
            assert await confirmed(rabbitmq.redrive(an_event(), QUEUE))
            assert way.accepted == connections
            assert not await confirmed(rabbitmq.redrive(an_event(), OTHER_QUEUE)), "nothing else was published"
            await until_true(lambda: way.accepted > connections, "a new connection")
        await until(lambda: confirmed(rabbitmq.redrive(an_event(), OTHER_QUEUE)), "a confirm")
        await rabbitmq.stop()
