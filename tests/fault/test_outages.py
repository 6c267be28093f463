"""Outages of RabbitMQ, MongoDB and S3: no service ends, an upload is refused at once or finishes, health is honest."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection

import httpx
import pytest

from contracts import topology
from tests.support import rabbitmqctl
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.proxied import BACK_ENDS, PART_OF, REPLICAS, Proxied
from tests.support.recordings import wav, wav_of_size
from tests.support.rounds import Rounds, Sent
from tests.support.sori import Sori, new_token
from tests.support.stacks import kill_and_await
from tests.support.waiting import until, until_true

AT_ONCE_SECONDS = 2.0
OUTAGE_SECONDS = 5.0
SILENT_SECONDS = 130.0
"""Longer than the edge waits for a service."""
BACK_SECONDS = 30.0
CONSUMES_AGAIN_SECONDS = 10.0
LARGE_BYTES = 6 * 1024 * 1024
OUTAGES = [pytest.param((name,), id=name) for name in BACK_ENDS] + [pytest.param(tuple(BACK_ENDS), id="everything")]
LONG_OUTAGES = [
    *(pytest.param((name,), id=name, marks=pytest.mark.full) for name in BACK_ENDS),
    pytest.param(tuple(BACK_ENDS), id="everything"),
]


@pytest.fixture(autouse=True)
async def the_network_is_good_again(proxied: Proxied, client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Every test begins and ends with a stack that is ready."""
    yield
    for proxy in proxied.all:
        proxy.heal()
    await all_ready(proxied, client)


@pytest.mark.parametrize(
    "back_end", ["rabbitmq", *(pytest.param(name, marks=pytest.mark.full) for name in ("mongodb", "s3"))]
)
async def test_a_back_end_that_is_killed_and_comes_back_ends_no_service(
    proxied: Proxied, client: httpx.AsyncClient, rounds: Rounds, back_end: str
) -> None:
    before = proxied.service_pids()
    running = asyncio.create_task(rounds.run(10))
    early = await rounds.accepted("slow")
    began = time.monotonic()
    rounds.say(f"kill -9 {back_end}")
    await kill_and_await(proxied.stack, PART_OF[back_end])
    rounds.say(f"{back_end} is back")
    await running
    await rounds.ended(early, began)
    await rounds.check(early)
    await all_ready(proxied, client)
    rounds.say("every service is ready")
    assert proxied.service_pids() == before


@pytest.mark.parametrize("away", LONG_OUTAGES)
async def test_jobs_that_are_under_way_in_an_outage_complete(
    proxied: Proxied, rounds: Rounds, away: Collection[str]
) -> None:
    under_way = asyncio.create_task(rounds.run(6))
    first = await rounds.accepted("slow")
    shut(proxied, rounds, away)
    # The outage itself is what is waited for.
    await asyncio.sleep(OUTAGE_SECONDS)
    open_again(proxied, rounds, away)
    await under_way
    await rounds.ended(first, time.monotonic())
    await rounds.check(first)


@pytest.mark.parametrize(
    "size", [pytest.param(13_000, id="small"), pytest.param(LARGE_BYTES, id="in parts", marks=pytest.mark.full)]
)
@pytest.mark.parametrize(
    "away", [*OUTAGES[:-1], pytest.param(tuple(BACK_ENDS), id="everything", marks=pytest.mark.full)]
)
async def test_an_upload_in_an_outage_is_refused_at_once_or_finishes_later(
    proxied: Proxied, proxied_sori: Sori, proxied_bucket: Bucket, *, rounds: Rounds, away: Collection[str], size: int
) -> None:
    await rounds.run(2)  # with connections that are open when it begins
    shut(proxied, rounds, away)
    sent = [await an_upload(proxied_sori, rounds, size) for _ in range(3)]
    open_again(proxied, rounds, away)
    for answer, token_id in sent:
        if answer.status_code == 202:
            job = Sent(token_id, answer.json()["job_id"])
            await rounds.ended(job, time.monotonic())
            await rounds.check(job)
    if "s3" in away or "mongodb" in away:
        assert {answer.status_code for answer, _ in sent} == {503}
    await rounds.run(2)


async def an_upload(sori: Sori, rounds: Rounds, size: int) -> tuple[httpx.Response, str]:
    """Send a recording once; the answer must come at once: 202, or 503 with Retry-After."""
    token_id = new_token()
    recording = wav_of_size(size, seed=rounds.random.randrange(2**32))
    began = time.monotonic()
    answer = await sori.upload(recording, token_id)
    took = time.monotonic() - began
    rounds.say(f"an upload of {size} bytes: {answer.status_code} after {took:.2f} s")
    if answer.status_code != 202:
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"].startswith("application/problem+json")
    assert took < AT_ONCE_SECONDS
    return answer, token_id


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("away", OUTAGES)
async def test_an_upload_while_a_back_end_says_nothing_at_all_is_answered_in_bounded_time(
    proxied: Proxied, proxied_sori: Sori, rounds: Rounds, away: Collection[str]
) -> None:
    """Only time tells silence from slowness. A front end that gives up earlier and sends again gets one job."""
    await rounds.run(2)
    for proxy in proxied.between(*(f">{name}" for name in away)):
        proxy.swallow()
    rounds.say(f"silent: {', '.join(away)}")
    for _ in range(2):
        began = time.monotonic()
        token_id = new_token()
        answer = await proxied_sori.client.post(
            f"{proxied_sori.url}/tokens/{token_id}/upload-audio",
            files={"file": ("recording.wav", wav(0.4, seed=rounds.random.randrange(2**32)), "audio/wav")},
            timeout=SILENT_SECONDS,
        )
        rounds.say(f"{answer.status_code} after {time.monotonic() - began:.1f} s")
        assert answer.status_code in {202, 503}
    for proxy in proxied.all:
        proxy.heal()
    await rounds.run(2)


DELETED = [
    pytest.param(topology.UPLOADER_UPLOAD_RECEIVED, id="uploader"),
    pytest.param(topology.BRIDGE_AUDIO_STORED, id="analyzer-bridge", marks=pytest.mark.full),
    pytest.param(topology.NOTIFIER_QUEUES[0], id="notifier", marks=pytest.mark.full),
]


@pytest.mark.parametrize("queue", DELETED)
async def test_a_queue_that_is_deleted_under_its_consumers_comes_back_and_costs_no_upload(
    proxied: Proxied,
    proxied_broker: Broker,
    proxied_sori: Sori,
    client: httpx.AsyncClient,
    *,
    rounds: Rounds,
    queue: topology.Queue,
) -> None:
    """Its consumers go with it, but the broker still answers pings; no replica is restarted."""
    before = proxied.service_pids()
    names = [f"{queue.service}-{replica}" for replica in range(1, REPLICAS + 1)]
    await all_ready(proxied, client)
    await proxied_broker.delete(queue)
    rounds.say(f"{queue.name} is deleted")
    uploads = asyncio.gather(*(an_upload(proxied_sori, rounds, 13_000) for _ in range(3)))

    async def seen() -> bool:
        return not any([await is_ready(proxied, client, name) for name in names])

    await until(seen, f"no replica of {queue.service} is ready", limit_seconds=10)
    rounds.say(f"{', '.join(names)} say that they do not consume")
    began = time.monotonic()

    async def back() -> bool:
        ready = all([await is_ready(proxied, client, name) for name in names])
        return ready and await proxied_broker.consumers(queue) == REPLICAS

    await until(back, f"every replica of {queue.service} consumes again", limit_seconds=CONSUMES_AGAIN_SECONDS)
    rounds.say("they consume again")
    for answer, token_id in await uploads:
        if answer.status_code == 202:
            job = Sent(token_id, answer.json()["job_id"])
            await rounds.ended(job, began)
            await rounds.check(job)
    await rounds.run(4)
    assert proxied.service_pids() == before


@pytest.mark.full
async def test_consumers_that_the_broker_counts_but_gives_nothing_are_replaced(
    proxied: Proxied, proxied_broker: Broker, client: httpx.AsyncClient, rounds: Rounds
) -> None:
    """When a queue is replaced at once, RabbitMQ moves its consumers to the new one, and loses what it gives them.

    Nobody is told: they begin anew when they were given nothing for a minute.
    """
    before = proxied.service_pids()
    await all_ready(proxied, client)
    await proxied_broker.delete(topology.UPLOADER_UPLOAD_RECEIVED)
    await proxied_broker.declare(topology.UPLOADER_UPLOAD_RECEIVED)
    rounds.say("a queue was deleted and declared again at once")
    await rounds.run(4)
    assert proxied.service_pids() == before


async def test_a_connection_whose_publish_is_not_confirmed_is_not_used_again(proxied: Proxied, rounds: Rounds) -> None:
    await rounds.run(2)
    (gateway,) = proxied.between("gateway>rabbitmq")
    accepted = gateway.accepted
    began = time.monotonic()
    async with rabbitmqctl.stood_still(proxied.stack, topology.UPLOADER_UPLOAD_RECEIVED.name):
        rounds.say("a queue takes nothing and refuses nothing")
        job = await rounds.accepted()
        await until_true(lambda: gateway.accepted > accepted, "a new connection of the gateway")
        rounds.say("the gateway has begun anew")
    await rounds.ended(job, began)
    await rounds.check(job)
    await rounds.run(4)


def shut(proxied: Proxied, rounds: Rounds, away: Collection[str]) -> None:
    """Nobody reaches these back ends, and connections to them are reset."""
    rounds.say(f"away: {', '.join(away)}")
    for proxy in proxied.between(*(f">{name}" for name in away)):
        proxy.refuse()


def open_again(proxied: Proxied, rounds: Rounds, away: Collection[str]) -> None:
    rounds.say(f"back: {', '.join(away)}")
    for proxy in proxied.between(*(f">{name}" for name in away)):
        proxy.heal()


async def all_ready(proxied: Proxied, client: httpx.AsyncClient) -> None:
    async def look() -> bool:
        return all([await is_ready(proxied, client, name) for name in proxied.service_pids()])

    await until(look, "every replica of every service is ready", limit_seconds=BACK_SECONDS)


async def is_ready(proxied: Proxied, client: httpx.AsyncClient, name: str) -> bool:
    try:
        answer = await client.get(f"{proxied.stack.parts[name].address}/health/ready")
    except httpx.TransportError:
        return False
    return answer.status_code == 200


async def health(proxied: Proxied, client: httpx.AsyncClient, name: str) -> str:
    answer = await client.get(f"{proxied.stack.parts[name].address}/health/ready")
    return f"{answer.status_code} {answer.json()['checks']}"
