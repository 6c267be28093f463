"""What stands still is told again: a job whose event was lost on its way, or never published, reaches its end."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from contracts.job import Job, apply, changed
from local_stack.stack import Stack
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.waiting import until


async def left_behind(bucket: Bucket, jobs: Any, seed: int) -> str:
    """What a gateway leaves that dies between keeping a job and publishing its event."""
    recording = wav(0.3, seed=seed)
    event = Story(str(uuid.uuid4()), new_token(), recording).upload_received(age=timedelta(minutes=1))
    await bucket.put(event.data.inbox_key, recording)
    job = Job.received(event, "recording.wav", publish_at=datetime.now(UTC))
    await jobs.insert_one(job.model_dump(by_alias=True))
    return event.subject


async def measured(client: httpx.AsyncClient, stack: Stack, name: str, **labels: str) -> float:
    """A number that the gateways count or measure, of all of them together."""
    total = 0.0
    for part in (part for part in stack.parts.values() if part.name.startswith("gateway-")):
        answer = await client.get(f"{part.address}/metrics")
        assert answer.status_code == 200
        families = text_string_to_metric_families(answer.text)
        samples = [sample for family in families for sample in family.samples]
        total += sum(sample.value for sample in samples if sample.name == name and sample.labels == labels)
    return total


async def test_what_a_crash_left_unpublished_is_published_and_completes(bucket: Bucket, jobs: Any, sori: Sori) -> None:
    left = await asyncio.gather(*(left_behind(bucket, jobs, seed) for seed in range(31, 35)))
    states = await asyncio.gather(*(sori.ended(job_id) for job_id in left))
    assert [state["status"] for state in states] == ["completed"] * len(left)
    assert [state["result"]["s3_audio_url"] for state in states] == [f"s3://{bucket.name}/audio/{j}.wav" for j in left]
    await bucket.until_inbox_is_empty()


async def test_the_event_is_kept_until_the_job_has_ended(sori: Sori, jobs: Any) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    under_way = await jobs.find_one({"_id": job_id})
    assert Story(job_id).upload_received().id in under_way["upload_received"]
    assert (await sori.webhook(job_id, {"status": "success", "result": {}})).status_code == 200
    await sori.ended(job_id)
    assert "upload_received" not in await jobs.find_one({"_id": job_id})


async def test_a_job_whose_message_was_lost_is_told_again_and_completes(
    bucket: Bucket, jobs: Any, sori: Sori, stack: Stack
) -> None:
    """As after the broker lost a queue: the subscribers have seen the job, and nothing moves it."""
    before = await measured(sori.client, stack, "sori_redrives_total", what="job")
    recording = wav(0.3, seed=41)
    event = Story(str(uuid.uuid4()), new_token(), recording).upload_received(age=timedelta(minutes=1))
    await bucket.put(event.data.inbox_key, recording)
    job = Job.received(event, None, publish_at=datetime.now(UTC))
    change = apply(job, event)
    assert change is not None
    await jobs.insert_one(changed(job, change).model_dump(by_alias=True))
    assert (await sori.ended(event.subject))["status"] == "completed"
    assert await measured(sori.client, stack, "sori_redrives_total", what="job") > before


async def test_how_far_the_redrive_is_behind_is_measured(sori: Sori, stack: Stack) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)

    async def known() -> bool:
        return await measured(sori.client, stack, "sori_oldest_publish_at_seconds") > 0

    await until(known, "the oldest publish_at")
    assert (await sori.client.delete(f"{sori.url}/jobs/{job_id}")).status_code == 202
    outside = await sori.client.get(f"{sori.url}/metrics")
    assert (outside.status_code, outside.json()["code"]) == (404, "not_found")
