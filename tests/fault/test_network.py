"""Bad networks between every two programs that talk: whatever is done to the bytes, every job completes, seen once."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from contracts import topology
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.proxied import ANALYSIS_SERVER, CLIENT, WEBHOOK, Proxied
from tests.support.proxy import Proxy, Weather
from tests.support.rounds import Rounds
from tests.support.waiting import until, until_true

TOGETHER: dict[str, tuple[str, ...]] = {
    "services and RabbitMQ": (">rabbitmq",),
    "services and MongoDB": (">mongodb",),
    "services and S3": (">s3",),
    "bridge and analysis server": (ANALYSIS_SERVER,),
    "analysis server and edge": (WEBHOOK,),
    "edge and services": ("edge>gateway", "edge>notifier"),
    "client and edge": (CLIENT,),
}
ALONE = (
    *("gateway>rabbitmq", "uploader>rabbitmq", "analyzer-bridge>rabbitmq", "notifier>rabbitmq"),
    *("gateway>mongodb", "analyzer-bridge>mongodb", "notifier>mongodb"),
    *("gateway>s3", "uploader>s3"),
    *("edge>gateway", "edge>notifier"),
)
PAIRS = [
    pytest.param((*(pair for pairs in TOGETHER.values() for pair in pairs),), id="everything"),
    *(pytest.param(pairs, id=name, marks=pytest.mark.full) for name, pairs in TOGETHER.items()),
    *(pytest.param((pair,), id=pair, marks=pytest.mark.full) for pair in ALONE),
]
between_pairs = pytest.mark.parametrize("pairs", PAIRS)
JOBS = 5
CUTS = 3
CUT_WITHIN_BYTES = 3000
"""Each connection breaks somewhere in its first messages, in the middle of one more often than not."""
LATENCY_SECONDS = 0.1
DRIP_BYTES = 256


@dataclass(frozen=True)
class NoticedWithin:
    """How long something may go on waiting for a half-open connection, and what ends the wait."""

    seconds: float
    by: str


NOTICED_WITHIN = {
    "services and RabbitMQ": NoticedWithin(90, "heartbeats of 5 s, and what is then tried again"),
    "services and MongoDB": NoticedWithin(60, "5 s for each operation, then a retry"),
    "services and S3": NoticedWithin(90, "30 s to read an answer, then a retry"),
    "bridge and analysis server": NoticedWithin(60, "15 s for an answer, then a retry"),
    "analysis server and edge": NoticedWithin(60, "asking again after ANALYSIS_TIMEOUT"),
    "edge and services": NoticedWithin(180, "120 s without a byte: streams have a heartbeat each 15 s"),
    "client and edge": NoticedWithin(150, "60 s without a byte, which is up to the client"),
}


@pytest.fixture
async def bad_network(proxied: Proxied) -> AsyncIterator[Proxied]:
    """The stack, whose network is good again after the test."""
    yield proxied
    for proxy in proxied.all:
        proxy.heal()


@pytest.fixture(autouse=True)
async def nothing_is_left(proxied_broker: Broker, proxied_bucket: Bucket, proxied_jobs: Any) -> AsyncIterator[None]:
    """No fault may use up a message's tries, or leave more in the inbox than the sweeper may remove."""
    yield
    for queue in topology.QUEUES:
        await proxied_broker.until_empty(queue.name)
        await proxied_broker.until_empty(queue.dead_name)

    async def only_leftovers() -> bool:
        # Two leftovers are allowed: a request that was refused late leaves bytes of no job, and bytes that could not be
        # deleted belong to a job that has ended.
        ids = [key.removeprefix("inbox/").split(".")[0] for key in await proxied_bucket.keys("inbox/")]
        under_way = {"_id": {"$in": ids}, "view.status": "processing"}
        return not await proxied_jobs.count_documents(under_way)

    await until(only_leftovers, "an inbox without a recording of a job that is under way")


@between_pairs
async def test_a_slow_network_only_makes_jobs_slower(
    bad_network: Proxied, rounds: Rounds, pairs: Sequence[str]
) -> None:
    for proxy in bad_network.between(*pairs):
        proxy.weather = Weather(latency_seconds=LATENCY_SECONDS)
    rounds.say(f"{LATENCY_SECONDS} s each way between {', '.join(pairs)}")
    await rounds.run(JOBS)


@between_pairs
async def test_messages_that_arrive_in_drips_are_put_together(
    bad_network: Proxied, rounds: Rounds, pairs: Sequence[str]
) -> None:
    for proxy in bad_network.between(*pairs):
        proxy.weather = Weather(drip_bytes=DRIP_BYTES)
    rounds.say(f"{DRIP_BYTES} bytes at a time between {', '.join(pairs)}")
    await rounds.run(JOBS)


@between_pairs
async def test_connections_cut_in_mid_message_cost_no_job(
    bad_network: Proxied, rounds: Rounds, pairs: Sequence[str]
) -> None:
    proxies = bad_network.between(*pairs)
    for proxy in proxies:
        proxy.cut(CUTS, rounds.random.randrange(2**32), CUT_WITHIN_BYTES)
    rounds.say(f"up to {CUTS} cuts to come in each of {len(proxies)} ways between {', '.join(pairs)}")
    await rounds.run(JOBS)
    rounds.say(f"cuts: {cuts(proxies)}")
    while not all(proxy.cuts for proxy in proxies):
        await rounds.run(2)
        rounds.say(f"cuts: {cuts(proxies)}")


def cuts(proxies: Sequence[Proxy]) -> str:
    return ", ".join(f"{proxy.name} {proxy.cuts}" for proxy in proxies)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.full) for name in TOGETHER])
@pytest.mark.timeout(400)
async def test_half_open_connections_are_noticed_within_bounded_time(
    bad_network: Proxied, rounds: Rounds, client: httpx.AsyncClient, name: str
) -> None:
    """Every connection loses what is sent over it, neither end is told, and jobs are under way."""
    limit = NOTICED_WITHIN[name]
    proxies = bad_network.between(*TOGETHER[name])
    await rounds.run(JOBS)  # so that connections exist, some of them idle
    under_way = [await rounds.accepted("slow") for _ in range(JOBS)]
    began = time.monotonic()
    listening = asyncio.gather(*(rounds.ended(job, began) for job in under_way))
    accepted = {proxy: proxy.accepted for proxy in proxies}
    lost = {proxy.name: proxy.leave_half_open() for proxy in proxies}
    rounds.say(f"half-open: {lost}; allowed: {limit.seconds:g} s, {limit.by}")
    noticing = asyncio.gather(*(replaced(proxy, accepted[proxy], began) for proxy in proxies))
    later = await rounds.run(JOBS, limit.seconds)
    await asyncio.wait_for(listening, limit.seconds - (time.monotonic() - began))
    for job in under_way:
        await rounds.check(job)
    slowest = max(job.ended_after_seconds for job in (*under_way, *later))
    noticing.cancel()
    rounds.say(f"everything went on after {slowest:.1f} s at most")
    for part in bad_network.service_pids():
        await until_ready(client, bad_network.stack.parts[part].address, limit.seconds)


async def replaced(proxy: Proxy, accepted: int, began: float) -> None:
    """Print when the first new connection is there."""
    await until_true(lambda: proxy.accepted > accepted, f"a new connection {proxy.name}", limit_seconds=300)
    print(f"          {proxy.name}: a new connection after {time.monotonic() - began:.1f} s", flush=True)


async def until_ready(client: httpx.AsyncClient, address: str, limit_seconds: float) -> None:
    async def look() -> bool:
        return (await client.get(f"{address}/health/ready")).status_code == 200

    await until(look, f"{address} is ready", limit_seconds=limit_seconds)
