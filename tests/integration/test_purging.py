"""Purging: whoever listens hears the end, every owner removes its part, and nothing brings the job back."""

import uuid
from contextlib import AsyncExitStack
from typing import Any

from contracts import events, topology
from contracts.job import Job
from local_stack.stack import Stack
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.events import TRACEPARENT, Story
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.sse import listening
from tests.support.waiting import until

REPLICAS = ("notifier-1", "notifier-2")


def purged(job_id: str) -> events.JobPurged:
    data = events.JobPurgedData(token_id="a-token")
    return events.JobPurged.new(job_id, data, source="gateway", traceparent=TRACEPARENT)


async def until_forgotten(jobs: Any, bucket: Bucket, job_id: str) -> None:
    async def look() -> bool:
        kept = await jobs.find_one({"_id": job_id})
        return kept is None and not await bucket.keys(f"audio/{job_id}") and not await bucket.keys(f"inbox/{job_id}")

    await until(look, f"nothing left of job {job_id}")


async def test_a_job_that_is_purged_under_way_ends_its_streams_and_leaves_nothing(
    sori: Sori, broker: Broker, bucket: Bucket, jobs: Any, stack: Stack
) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    await bucket.put(f"inbox/{job_id}.0af3", b"what a slow first try left")
    addresses = [f"{stack.parts[replica].address}/tokens/analysis-progress/{job_id}" for replica in REPLICAS]
    async with AsyncExitStack() as opened:
        streams = [
            await opened.enter_async_context(listening(sori.client, address, last_event_id="0"))
            for address in addresses
        ]
        # Both hear something before the end, of which either replica tells them.
        listeners = [stream.messages() for stream in streams]
        firsts = [await anext(listener) for listener in listeners]
        await broker.publish(purged(job_id))
        for first, listener in zip(firsts, listeners, strict=True):
            messages = [first, *[message async for message in listener]]
            assert [int(message.id or 0) for message in messages] == list(range(1, len(messages) + 1))
            assert (messages[-1].state["status"], messages[-1].state["progress"]) == ("cancelled", 90)
    await until_forgotten(jobs, bucket, job_id)
    assert (await sori.result(job_id)).status_code == 404
    assert (await sori.client.get(sori.progress_url(job_id))).status_code == 404


async def test_what_comes_after_a_purge_brings_nothing_back(
    sori: Sori, broker: Broker, bucket: Bucket, jobs: Any
) -> None:
    job_id = (await sori.completed())["job_id"]
    story = Story(job_id)
    late = [purged(job_id), story.analysis_completed(), story.analysis_requested(2), story.upload_received()]
    async with broker.overhearing() as overheard:
        await broker.publish(purged(job_id))
        await until_forgotten(jobs, bucket, job_id)
        for event in late:
            await broker.publish(event)
        # The recording is nowhere: the last of it to be handled is the uploader's word on that.
        await overheard.until(job_id, events.UploadRejected)
    for queue in topology.QUEUES:
        await broker.until_empty(queue.name)
    await until_forgotten(jobs, bucket, job_id)


async def test_a_recording_whose_description_s3_has_lost_is_answered_for_all_the_same(
    broker: Broker, bucket: Bucket, jobs: Any
) -> None:
    """The local S3 server forgets metadata when it is started again; a redelivery may come after that."""
    recording, job_id = wav(0.5, seed=77), str(uuid.uuid4())
    event = Story(job_id, new_token(), recording).upload_received()
    await jobs.insert_one(Job.received(event, None).model_dump(by_alias=True))
    await bucket.put(event.data.inbox_key, recording)
    async with broker.overhearing() as overheard:
        await broker.publish(event)
        (first,) = await overheard.until(job_id, events.AudioStored)
        await bucket.until_inbox_is_empty()
        await bucket.put(f"audio/{job_id}.wav", recording)
        assert "sha256" not in (await bucket.head(f"audio/{job_id}.wav"))["Metadata"]
        await broker.publish(event)
        _, again = await overheard.until(job_id, events.AudioStored, count=2)
    assert (again.id, again.data) == (first.id, first.data)
