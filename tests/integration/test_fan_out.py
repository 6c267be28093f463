"""Replicas that tell one another by key, on a real broker: each hears what it is bound to, whatever happened before."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aio_pika
import pytest

from chassis.rabbitmq.connection import RabbitMQ
from contracts import topology
from local_stack.stack import Stack
from notifier.hub import Hub
from notifier.partitions import Partitions
from notifier.progress import Progress
from notifier.subscribers import subscribe
from tests.support import rabbitmqctl
from tests.support.notifier_jobs import Jobs
from tests.support.waiting import until, until_true
from tests.unit import stories
from tests.unit.notifier.test_hub import COMPLETED, Listener

EXCHANGE = topology.PROGRESS_EXCHANGE
EVENT = stories.stored()


class Replica:
    """One process's end of the exchange: what it was given, and what it was bound to whenever it had connected."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.connections = 0
        self.on_connected: Callable[[], None] = lambda: None
        self.rabbitmq = RabbitMQ(url)
        self.fan_out = self.rabbitmq.fan_out(EXCHANGE, "test", lambda *told: self.heard.append(told), self._connected)

    async def until_heard(self, count: int) -> None:
        await until_true(lambda: len(self.heard) >= count, f"{count} messages")

    def _connected(self) -> None:
        self.connections += 1
        self.on_connected()


Start = Callable[[], Awaitable[Replica]]


@pytest.fixture
async def host(stack: Stack) -> AsyncIterator[str]:
    """The address of a virtual host where no service is."""
    async with rabbitmqctl.virtual_host(stack) as url:
        yield url


@pytest.fixture
async def replica(host: str) -> AsyncIterator[Start]:
    """Start replicas on it."""
    async with AsyncExitStack() as running:

        async def start() -> Replica:
            started = Replica(host)
            started.rabbitmq.start()
            running.push_async_callback(started.rabbitmq.stop)
            await until(started.rabbitmq.consumes, "a replica that listens")
            return started

        yield start


@asynccontextmanager
async def operating(url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel of somebody else's."""
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        yield channel


async def lose_bindings(url: str) -> None:
    """Remove every binding of the exchange, of which nobody is told."""
    async with operating(url) as channel:
        await channel.exchange_delete(EXCHANGE)
        await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.DIRECT, durable=True)


async def test_a_replica_hears_what_is_told_with_its_keys_and_nothing_else(replica: Start) -> None:
    one, two = await replica(), await replica()
    await asyncio.gather(one.fan_out.bind("0a"), two.fan_out.bind("ff"), *(r.fan_out.bind("33") for r in (one, two)))
    for key in ("0a", "0b", "0a", "ff", "33"):
        await one.fan_out.tell(EVENT, key)
    await one.until_heard(3)
    await two.until_heard(2)
    assert one.heard == [(EVENT.subject, EVENT.encode())] * 3
    assert len(two.heard) == 2


async def test_what_is_told_once_a_key_is_bound_is_heard(replica: Start) -> None:
    one, two = await replica(), await replica()

    async def bind_and_tell(key: str) -> None:
        await two.fan_out.bind(key)
        await one.fan_out.tell(EVENT, key)

    await asyncio.gather(*map(bind_and_tell, topology.PARTITIONS))
    await two.until_heard(len(topology.PARTITIONS))
    assert one.heard == []


async def test_a_key_that_is_given_up_is_heard_no_more_and_one_taken_up_again_is(replica: Start) -> None:
    one, two = await replica(), await replica()
    await one.fan_out.bind("0a")
    await one.fan_out.bind("0b")
    for turns in range(20):
        one.fan_out.unbind("0a")
        for _ in range(turns):
            await asyncio.sleep(0)  # so the change has not begun, or is under way, or is done
        await one.fan_out.bind("0a")
        heard = len(one.heard)
        await two.fan_out.tell(EVENT, "0a")
        await one.until_heard(heard + 1)
    one.fan_out.unbind("0a")
    await one.fan_out.bind("0c")  # bindings change in order, and one after the other
    await one.fan_out.bind("0d")
    one.heard.clear()
    await two.fan_out.tell(EVENT, "0a")
    await two.fan_out.tell(EVENT, "0b")
    await one.until_heard(1)
    assert len(one.heard) == 1


@pytest.mark.parametrize("lost", ["connection", "queue", "exchange"])
async def test_all_keys_are_bound_again_before_the_replica_is_told_to_catch_up(
    stack: Stack, host: str, replica: Start, lost: str
) -> None:
    one, two = await replica(), await replica()
    for key in topology.PARTITIONS:
        await one.fan_out.bind(key)
    telling: list[asyncio.Task[None]] = []

    def tell_all() -> None:
        telling.extend(asyncio.create_task(two.fan_out.tell(EVENT, key)) for key in topology.PARTITIONS)

    one.on_connected = tell_all
    if lost == "connection":
        await asyncio.to_thread(rabbitmqctl.close_connections, stack, host)
    elif lost == "queue":
        assert one.fan_out.queue_name
        await asyncio.to_thread(rabbitmqctl.delete_queue, stack, host, one.fan_out.queue_name)
    else:
        async with operating(host) as channel:
            await channel.exchange_delete(EXCHANGE)
        await one.fan_out.tell(EVENT, "0a")  # which closes the channel
    await until_true(lambda: one.connections == 2, "a catch-up")
    await asyncio.wait(telling)
    # With its connection, the other replica may have lost what it was to tell; it has told the rest.
    told = sum(task.exception() is None for task in telling)
    assert told or lost == "connection"
    await one.until_heard(told)
    assert await one.rabbitmq.consumes()


async def test_while_the_broker_is_away_nobody_waits_for_a_binding() -> None:
    away = Replica("amqp://127.0.0.1:1/")
    async with asyncio.timeout(1):
        await away.fan_out.bind("0a")
    away.rabbitmq.start()
    async with asyncio.timeout(1):
        await away.fan_out.bind("0b")
    assert not await away.rabbitmq.consumes()
    await away.rabbitmq.stop()


class Notifier:
    """A notifier's parts that stand between an event and a listener, on the jobs that all replicas share."""

    def __init__(self, url: str, jobs: Jobs, heartbeat_seconds: float) -> None:
        self.hub = Hub(jobs, heartbeat_seconds=heartbeat_seconds)
        self.rabbitmq = RabbitMQ(url, prefetch=8)
        self.jobs = jobs
        self.partitions = Partitions(subscribe(self.rabbitmq, Progress(jobs), self.hub), self.hub.listened)

    async def listen(self, job_id: str) -> Listener:
        listener = Listener()
        stream = listener.open(self.hub, job_id)
        await self.partitions.enter(job_id)
        job = await self.jobs.find(job_id)
        assert job is not None
        self.hub.send_since(stream, job, 0)
        return listener


@asynccontextmanager
async def notifiers(url: str, jobs: Jobs, heartbeat_seconds: float = 15.0) -> AsyncIterator[tuple[Notifier, Notifier]]:
    """Two replicas."""
    pair = (Notifier(url, jobs, heartbeat_seconds), Notifier(url, jobs, heartbeat_seconds))
    for one in pair:
        one.hub.start()
        one.rabbitmq.start()
    for one in pair:
        await until(one.rabbitmq.consumes, "a notifier that listens")
    yield pair
    for one in pair:
        one.hub.stop()
        await one.rabbitmq.stop()


async def test_listeners_of_one_job_hear_all_of_it_at_whichever_replica_they_are(host: str) -> None:
    jobs = Jobs(COMPLETED[0])
    async with notifiers(host, jobs) as pair:
        listeners = [await one.listen(stories.JOB_ID) for one in pair]
        for event in stories.COURSES["completed"]:
            await pair[0].rabbitmq.publish(event)
        for listener in listeners:
            await listener.until(lambda listener=listener: listener.ended)  # type: ignore[misc] # mypy cannot infer a lambda with a default
    assert [listener.revisions for listener in listeners] == [[1, 2, 3, 4, 5]] * 2


async def test_a_lost_binding_leaves_no_stream_hanging(host: str) -> None:
    jobs = Jobs(COMPLETED[0])
    async with notifiers(host, jobs, heartbeat_seconds=0.5) as (one, _):
        listener = await one.listen(stories.JOB_ID)
        await lose_bindings(host)
        for event in stories.COURSES["completed"]:
            await one.rabbitmq.publish(event)
        await listener.until(lambda: listener.ended)
        assert jobs.looks
    assert listener.revisions == [1, 2, 3, 4, 5]


async def test_what_happened_while_the_broker_was_away_is_told_after_a_reconnection(stack: Stack, host: str) -> None:
    jobs = Jobs(COMPLETED[0])
    async with notifiers(host, jobs) as (one, _):
        listener = await one.listen(stories.JOB_ID)
        jobs.jobs[stories.JOB_ID] = COMPLETED[-1]
        assert listener.revisions == [1], "nobody has told it"
        await asyncio.to_thread(rabbitmqctl.close_connections, stack, host)
        await listener.until(lambda: listener.ended)
    assert listener.revisions == [1, 2, 3, 4, 5]
