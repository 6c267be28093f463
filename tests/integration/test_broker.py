"""The broker as subscribers know it: the same promises of RabbitMQ and of the queues in memory of the unit tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from chassis.errors import BackEndError
from chassis.rabbitmq.connection import RabbitMQ
from chassis.subscribing import Subscribing
from contracts import topology
from contracts.events import CONTENT_TYPE
from local_stack.stack import Stack
from tests.support.queues import Queues
from tests.support.rabbitmqctl import virtual_host
from tests.support.waiting import until
from tests.unit import stories

QUEUE = topology.BRIDGE_AUDIO_STORED
SHORTEST = topology.RETRY_DELAYS[0]


class Broker(Subscribing, Protocol):
    """What both offer."""

    async def consumes(self) -> bool: ...

    def consuming_since(self) -> datetime | None: ...

    async def depths(self, names: Iterable[str]) -> dict[str, int]: ...

    async def dead_letters(self) -> dict[str, int]: ...


class Seen:
    """A subscriber of one queue: what was delivered, and what it then does."""

    def __init__(self, broker: Broker, pump: Callable[[], Any]) -> None:
        self.broker = broker
        self.messages: list[tuple[bytes, str | None, str | None, dict[str, Any], bool]] = []
        self.then: list[Callable[[Any], Any]] = []
        self._pump = pump
        broker.subscribe(QUEUE, self._deliver)

    async def deliver(self, count: int) -> None:
        """Return once so many messages were delivered in all."""

        async def there() -> bool:
            await self._pump()
            return len(self.messages) >= count

        await until(there, f"{count} deliveries")

    async def _deliver(self, message: Any) -> None:
        headers = {name: value for name, value in message.headers.items() if name.startswith("x-sori")}
        self.messages.append(
            (message.body, message.message_id, message.content_type, headers, bool(message.redelivered))
        )
        if self.then:
            await self.then.pop(0)(message)


async def fail(_: Any) -> None:
    raise ValueError("not now")


@pytest.fixture(params=["in memory", "RabbitMQ"])
async def seen(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Seen]:
    """A subscriber of the stand-in, then of the real one: in a virtual host of its own, where no service consumes."""
    if request.param == "in memory":
        queues = Queues()

        async def pump() -> None:
            with suppress(ValueError):
                await queues.handle_all()

        yield Seen(queues, pump)
        return
    async with virtual_host(stack) as url:
        rabbitmq = RabbitMQ(url, prefetch=8)

        async def wait() -> None:
            """The broker delivers by itself."""

        subscriber = Seen(rabbitmq, wait)
        rabbitmq.start()
        await until(rabbitmq.consumes, "consumers")
        yield subscriber
        await rabbitmq.drain(5)
        await rabbitmq.stop()


async def test_an_event_is_delivered_as_it_was_published(seen: Seen) -> None:
    event = stories.stored()
    await seen.broker.publish(event)
    await seen.deliver(1)
    assert seen.messages == [(event.encode(), event.id, CONTENT_TYPE, {}, False)]


async def test_what_was_handled_does_not_come_again_and_what_failed_does(seen: Seen) -> None:
    seen.then = [fail]
    await seen.broker.publish(stories.stored())
    await seen.deliver(2)
    assert [redelivered for *_, redelivered in seen.messages] == [False, True]
    # A second event comes next, and not the first one once more.
    other = stories.stored("00000000-0000-4000-8000-000000000001")
    await seen.broker.publish(other)
    await seen.deliver(3)
    assert [message_id for _, message_id, *_ in seen.messages][2] == other.id


async def test_what_waits_comes_back_to_its_queue_with_the_headers_added(seen: Seen) -> None:
    async def wait(message: Any) -> None:
        await seen.broker.pass_on(message, SHORTEST.name, QUEUE.name, {topology.ATTEMPT_HEADER: 2})

    event = stories.stored()
    seen.then = [wait]
    await seen.broker.publish(event)
    await seen.deliver(2)
    assert seen.messages[1] == (event.encode(), event.id, CONTENT_TYPE, {topology.ATTEMPT_HEADER: 2}, False)


async def test_what_is_set_aside_is_counted_and_not_delivered(seen: Seen) -> None:
    async def set_aside(message: Any) -> None:
        await seen.broker.pass_on(message, "", QUEUE.dead_name, {topology.REASON_HEADER: "no use"})

    seen.then = [set_aside]
    await seen.broker.publish(stories.stored())
    await seen.deliver(1)

    async def counted() -> bool:
        return (await seen.broker.dead_letters())[QUEUE.name] == 1

    await until(counted, "a dead letter")
    assert len(seen.messages) == 1


async def test_what_waits_in_a_queue_is_counted(seen: Seen) -> None:
    other = topology.UPLOADER_UPLOAD_RECEIVED
    await seen.broker.redrive(stories.stored(), other)
    await seen.broker.redrive(stories.stored(), other)
    names = [QUEUE.name, other.name, "no.such.queue"]

    async def counted() -> bool:
        return await seen.broker.depths(names) == {QUEUE.name: 0, other.name: 2, "no.such.queue": 0}

    await until(counted, "both messages")


async def test_a_redriven_event_says_so(seen: Seen) -> None:
    event = stories.stored()
    await seen.broker.redrive(event, QUEUE)
    await seen.broker.publish(event, redriven=True)
    await seen.deliver(2)
    assert seen.messages == [(event.encode(), event.id, CONTENT_TYPE, {topology.REDRIVE_HEADER: 1}, False)] * 2


async def test_who_consumes_has_begun_to(seen: Seen) -> None:
    since = seen.broker.consuming_since()
    assert since is not None
    assert since <= datetime.now(UTC)
    assert seen.broker.consuming_since() == since


async def test_after_draining_nothing_is_handed_over_and_what_was_in_hand_has_ended(stack: Stack) -> None:
    async with virtual_host(stack) as url:
        rabbitmq = RabbitMQ(url, prefetch=8)
        begun, going, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        deliveries: list[str | None] = []

        async def deliver(message: Any) -> None:
            deliveries.append(message.message_id)
            begun.set()
            await going.wait()
            ended.set()

        rabbitmq.subscribe(QUEUE, deliver)
        rabbitmq.start()
        await until(rabbitmq.consumes, "consumers")
        first = stories.stored()
        await rabbitmq.publish(first)
        await begun.wait()
        draining = asyncio.create_task(rabbitmq.drain(10))

        async def takes_no_more() -> bool:
            return not await rabbitmq.consumes()

        await until(takes_no_more, "no consumers")
        await rabbitmq.publish(stories.stored("00000000-0000-4000-8000-000000000001"))
        assert not draining.done(), "it waits for what is in hand"
        going.set()
        await draining
        assert ended.is_set()
        assert deliveries == [first.id]
        await rabbitmq.stop()


async def test_nothing_can_be_published_before_the_broker_was_reached() -> None:
    with pytest.raises(BackEndError):
        await RabbitMQ("amqp://127.0.0.1:1/").publish(stories.stored())
