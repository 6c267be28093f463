"""Thousands of jobs that waited out an outage of RabbitMQ: each is told, asked for and completed about once."""

import asyncio
import json
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from contracts import events, topology
from contracts.job import Job, Status
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker
from tests.support.bucket import Bucket, opened
from tests.support.events import Story
from tests.support.proxied import REPLICAS, Proxied
from tests.support.recordings import wav
from tests.support.rounds import Rounds
from tests.support.sori import new_token
from tests.support.waiting import until

RECORDING = wav(0.1, seed=7, rate=8000)
"""Small and shared: each job has a token of its own, so no result can come from the cache."""
OUTAGE = timedelta(hours=1)
MESSAGES_PER_JOB = 1.1
COPIES_AT_ONCE = 16
LOOK_EVERY_SECONDS = 1.0
SAY_EVERY_SECONDS = 15.0
TOLD_OF_EVERY_JOB = (
    events.UploadReceived,
    events.AudioStored,
    events.AnalysisRequested,
    events.AnalysisWebhookReceived,
    events.AnalysisCompleted,
)


@pytest.mark.parametrize(
    ("count", "limit_seconds"),
    [
        pytest.param(1_000, 240, id="1000-jobs", marks=[pytest.mark.short, pytest.mark.timeout(400)]),
        pytest.param(10_000, 2400, id="10000-jobs", marks=[pytest.mark.full, pytest.mark.timeout(2700)]),
    ],
)
async def test_jobs_that_waited_out_an_outage_cost_few_messages_and_one_request_each(
    hurried: Proxied,
    hurried_broker: Broker,
    hurried_database: Any,
    analysis_server: AnalysisServer,
    *,
    client: httpx.AsyncClient,
    hurried_rounds: Rounds,
    count: int,
    limit_seconds: float,
) -> None:
    say, jobs = hurried_rounds.say, hurried_database["jobs"]
    redriven_before = await redrives(hurried, client)
    async with hurried_broker.counting() as messages:
        with hurried.away("rabbitmq"):
            async with opened(hurried.stack.settings) as bucket:
                tokens = await made_meanwhile(bucket, jobs, count)
            say(f"{count} jobs wait")
        began = time.monotonic()
        longest = await until_completed(
            hurried_broker, jobs, messages, hurried_rounds, count=count, limit_seconds=limit_seconds
        )
        seconds = time.monotonic() - began
    redriven = await redrives(hurried, client) - redriven_before
    say(f"{count} jobs completed in {seconds:.0f} s, {count / seconds:.1f} jobs/s; {redriven} redrives")
    say(f"the longest queues: {dict(longest.most_common(5))}")
    messages[events.UploadReceived.TYPE] += redriven  # they pass the exchange by
    for event_type, number in sorted(messages.items()):
        say(f"{number / count:.3f} messages per job: {event_type}")
    asked = {f"s3://sori/audio/{job_id}.wav": 1 for job_id in tokens}
    times = Counter({url: times for url, times in (await analysis_server.times_asked()).items() if url in asked})
    say(f"requests per job: {dict(Counter(times.values()))}")
    await assert_completed_with_their_own_results(jobs, tokens)
    assert times == asked
    assert {kind.TYPE for kind in TOLD_OF_EVERY_JOB} <= messages.keys()
    assert max(messages.values()) <= MESSAGES_PER_JOB * count


async def made_meanwhile(bucket: Bucket, jobs: Any, count: int) -> dict[str, str]:
    """Accept so many uploads as gateways did when the outage began; return each job's token by its id."""
    tokens = {str(uuid.uuid4()): new_token() for _ in range(count)}
    at_once = asyncio.Semaphore(COPIES_AT_ONCE)

    async def store(job_id: str) -> None:
        async with at_once:
            await bucket.put(f"inbox/{job_id}", RECORDING)

    await asyncio.gather(*(store(job_id) for job_id in tokens))
    due = datetime.now(UTC) - OUTAGE
    received = [Story(job_id, token_id, RECORDING).upload_received(age=OUTAGE) for job_id, token_id in tokens.items()]
    documents = [Job.received(event, None, publish_at=due).model_dump(by_alias=True) for event in received]
    await jobs.insert_many(documents)
    return tokens


async def until_completed(
    broker: Broker, jobs: Any, messages: Counter[str], rounds: Rounds, *, count: int, limit_seconds: float
) -> Counter[str]:
    """Wait until every job has ended and no message waits; return how long each queue has been."""
    longest, said = Counter[str](), time.monotonic()

    async def look() -> bool:
        nonlocal said
        waiting = Counter({name: await broker.waiting(name) for name in topology.QUEUES_ON_THE_WAY})
        longest.update(waiting - longest)
        left = await jobs.count_documents({"view.status": Status.PROCESSING})
        if time.monotonic() - said > SAY_EVERY_SECONDS:
            said = time.monotonic()
            rounds.say(f"{left} jobs left; waiting: {dict(+waiting)}; {dict(messages)}")
        return left == 0 and not +waiting

    await until(look, f"the end of {count} jobs", limit_seconds=limit_seconds, every_seconds=LOOK_EVERY_SECONDS)
    return longest


async def assert_completed_with_their_own_results(jobs: Any, tokens: dict[str, str]) -> None:
    found = {}
    async for document in jobs.find({"_id": {"$in": list(tokens)}}, {"view.status": 1, "result_json": 1}):
        result = document["result_json"]
        found[document["_id"]] = (document["view"]["status"], None if result is None else json.loads(result))
    assert found == {
        job_id: (
            Status.COMPLETED,
            {"video_id": token_id, "s3_audio_url": f"s3://sori/audio/{job_id}.wav", "score": 87.5},
        )
        for job_id, token_id in tokens.items()
    }


async def redrives(hurried: Proxied, client: httpx.AsyncClient) -> int:
    """How many jobs the gateways have told again to the uploader alone."""
    total = 0
    for replica in range(1, REPLICAS + 1):
        answer = await client.get(f"{hurried.stack.parts[f'gateway-{replica}'].address}/metrics")
        for line in answer.text.splitlines():
            if line.startswith('sori_redrives_total{what="job"}'):
                total += round(float(line.split()[-1]))
    return total
